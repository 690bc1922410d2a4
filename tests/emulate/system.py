"""A folder that holds another CPU's Python: Debian's packages unpacked, and wheels beside them.

Nothing is installed here and nothing in the folder is run but its Python, under qemu. The wheels
are of the versions that run here, so that the very same compiler makes the code.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = ("python3", f"libpython{PYTHON}", "libgomp1", "libstdc++6", "zlib1g")
# what the engine needs to read a checkpoint and run it; PyTorch stays here
WHEELS = (
    "numba", "llvmlite", "numpy", "safetensors", "pydantic", "pydantic-core", "annotated-types",
    "typing-extensions", "typing-inspection",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
NEEDED = {"qemu-aarch64-static": "qemu-user-static", "debootstrap": "debootstrap"}
Say = Callable[[str], None]


class CannotEmulate(Exception):
    """Something is missing on this machine; the message says what to do."""


def prepare(folder: Path, say: Say, mirror: str = "") -> Path:
    """The root of the other system, made on the first call: 230 MB of packages, some minutes."""
    check()
    root, stamp = folder / "root", folder / "root.json"
    wanted = {"suite": SUITE, "packages": PACKAGES, "wheels": _versions()}
    wanted = json.loads(json.dumps(wanted))
    if stamp.exists() and json.loads(stamp.read_text("utf-8")) == wanted:
        return root
    stamp.unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    say(f"fetching Debian {SUITE} for arm64")
    include = ",".join(PACKAGES)
    flags = ["--arch=arm64", "--variant=minbase", "--foreign", f"--include={include}"]
    _run("debootstrap", *flags, SUITE, str(root), *([mirror] if mirror else []))
    say("unpacking it")
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(root))
    say("fetching wheels")
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    platforms = [f"--platform={name}_aarch64" for name in PLATFORMS]
    _run(
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        f"--python-version={PYTHON}", "--implementation=cp", *platforms, "-d", str(wheels),
        *(f"{name}=={version}" for name, version in _versions().items()),
    )  # fmt: skip
    for wheel in sorted(wheels.glob("*.whl")):
        shutil.unpack_archive(wheel, root / "site", "zip")
    stamp.write_text(json.dumps(wanted), "utf-8")
    return root


def check() -> None:
    """Raise CannotEmulate with one line that says what this machine lacks."""
    if not sys.platform.startswith("linux"):
        raise CannotEmulate("emulating another CPU's programs needs Linux and its qemu-user")
    if missing := [package for tool, package in NEEDED.items() if not _which(tool)]:
        raise CannotEmulate(
            f"{' and '.join(missing)} missing; as root: apt-get install {' '.join(missing)}"
        )


def command(root: Path, cpu: str, *words: str) -> list[str]:
    """The command that runs the other system's Python on an emulated core of this name."""
    return ["qemu-aarch64-static", "-cpu", cpu, str(root / f"usr/bin/python{PYTHON}"), *words]


def environment(root: Path, source: Path, cache: Path, cpu: str, flags: str) -> dict[str, str]:
    """Numba sees `generic` under emulation, so it is told the core's name and features."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "QEMU_LD_PREFIX": str(root),
        "PYTHONPATH": os.pathsep.join([str(root / "site"), str(source)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": flags,
        "EDGEWISE_CACHE": str(cache),
    }


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in WHEELS}


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def _run(*words: str) -> None:
    words = (_which(words[0]) or words[0], *words[1:])
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = said[-1] if said else f"exit code {done.returncode}"
        raise CannotEmulate(f"{Path(words[0]).name} failed: {last}")
