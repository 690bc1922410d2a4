"""The project's menu: `nox -l` lists it, `nox -s NAME` does it, `-- OPTIONS` go to the command.

Sessions share one environment, .nox/edgewise, filled by the first of them; later ones start at
once and need no network. pip finds its own settings (PIP_EXTRA_INDEX_URL, pip.conf and so on).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nox

if sys.version_info < (3, 11):  # noqa: UP036 - pip would say so after minutes
    sys.exit(f"this is Python {platform.python_version()}; Edgewise needs 3.11 or newer")

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"  # only pip finds PyTorch's CPU build by an extra index
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
DEVICES = ROOT / "targets" / "devices"
ENVIRONMENT = ROOT / ".nox" / "edgewise"
PROGRAMS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = PROGRAMS / ("python.exe" if os.name == "nt" else "python")
STAMP = ENVIRONMENT / "installed.json"  # written last, so a broken installation starts again
PEERS_STAMP = ENVIRONMENT / "peers.json"
NATIVE = "llama-cpp-python"
NEEDED_MEMORY = 1.5 * 2**30  # PyTorch training the largest candidate of the main job
NEEDED_DISK = 2.5 * 2**30  # the environment with the CPU build of PyTorch, and pip's work


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style, form and the import contract: ruff and import-linter."""
    prepare(session)
    check_lint(session)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Type hints: mypy, strict."""
    prepare(session)
    check_types(session)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Everything a change must pass: lint, types and the tests, in about 10 minutes."""
    prepare(session)
    check_lint(session)
    check_types(session)
    run(session, "pytest", *session.posargs)


PATHS = {
    "native": {},
    "plain": {"EDGEWISE_PLAIN": "1"},
    "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c"},
}


@nox.session(venv_backend="none")
@nox.parametrize("path", list(PATHS), ids=list(PATHS))
def kernels(session: nox.Session, path: str) -> None:
    """The contracts of kernels and engine, on one path through the instruction sets."""
    if path == "avx2" and platform.machine().lower() not in ("x86_64", "amd64"):
        session.skip(f"{platform.machine()} has no AVX2")
    prepare(session)
    tests = ("tests/test_simd.py", "tests/test_kernels.py", "tests/test_engine.py")
    run(session, "pytest", *tests, *session.posargs, **PATHS[path])


@nox.session(venv_backend="none")
@nox.parametrize("cpu", ["cortex-a72", "cortex-a76"], ids=["cortex-a72", "cortex-a76"])
def emulate(session: nox.Session, cpu: str) -> None:
    """Every kernel and the engine on an Arm core that qemu emulates; an hour."""
    prepare(session)
    run(session, "tests.emulate", cpu, *session.posargs)


@nox.session(venv_backend="none")
def gates(session: nox.Session) -> None:
    """Speed of the kernels in the working tree against the last commit, side by side."""
    prepare(session)
    run(
        session,
        "pytest",
        "tests/gates",
        "--benchmark-enable",
        "--benchmark-autosave",
        *session.posargs,
    )


@nox.session(venv_backend="none")
def verify(session: nox.Session) -> None:
    """Every kernel and engine against its reference."""
    prepare(session)
    run(session, "harness", "verify", *session.posargs)


@nox.session(venv_backend="none")
def sweep(session: nox.Session) -> None:
    """The main job: train, compress, measure here, project elsewhere, decide; 10 minutes."""
    prepare(session)
    run(session, "harness", "sweep", *session.posargs)


@nox.session(venv_backend="none")
def peers(session: nox.Session) -> None:
    """Our engine beside llama.cpp (built here), PyTorch, ONNX Runtime: one table; 25 minutes."""
    prepare(session)
    prepare_peers(session)
    if not session.posargs:  # a whole run: peers that compute something else are no peers
        run(session, "pytest", "--quiet", "tests/test_engines.py", "tests/test_llama_cpp.py")
    run(session, "harness", "peers", "--readme", "README.md", *session.posargs)


@nox.session(venv_backend="none")
def projection(session: nox.Session) -> None:
    """How wrong projections are on SoCs, engines and models left out: the table of truth."""
    prepare(session)
    run(
        session, "harness", "--devices", "results/vm/device", "truth", "--results", "results",
        "--write", "results/projection", "--readme", "README.md", *session.posargs,
    )  # fmt: skip


@nox.session(venv_backend="none")
def codesign(session: nox.Session) -> None:
    """The co-design map, and where one algorithm overtakes another, on every device."""
    prepare(session)
    for verb in ("map", "crossover"):
        run(session, "harness", verb, "--write", "results/codesign", *session.posargs)


@nox.session(venv_backend="none")
def publish(session: nox.Session) -> None:
    """Tables and figures of the finished rows, into results/ and the README."""
    prepare(session)
    run(session, "harness", "publish", "--readme", "README.md", *session.posargs)


def target(name: str) -> Callable[[nox.Session], None]:
    """A session: the default sweep for one device, measured, brought or projected."""

    def session_of_device(session: nox.Session) -> None:
        prepare(session)
        run(session, "harness", "target", name, *session.posargs)

    return session_of_device


for _path in sorted(DEVICES.glob("*.toml")):
    _session = target(_path.stem)
    # What is wrong with a broken profile is for Edgewise to say, when it is asked for.
    try:
        _session.__doc__ = str(nox.project.load_toml(_path)["summary"])
    except (ValueError, KeyError):
        _session.__doc__ = "(broken profile)"
    nox.session(venv_backend="none", name=f"target({_path.stem})", default=False)(_session)


# ---- steps of sessions -------------------------------------------------------------------------


def check_lint(session: nox.Session) -> None:
    run(session, "ruff", "check", "--quiet", ".")
    run(session, "ruff", "format", "--check", "--quiet", ".")
    execute(session, str(PROGRAMS / "lint-imports"))  # `python -m importlinter.cli` does nothing


def check_types(session: nox.Session) -> None:
    run(session, "mypy")


def run(session: nox.Session, module: str, *words: str, **environment: str) -> None:
    """`python -m MODULE WORDS` in the shared environment."""
    execute(session, str(PYTHON), "-m", module, *words, **environment)


def execute(session: nox.Session, *words: str, **environment: str) -> None:
    """A program with the shared environment first on its path.

    Ctrl-C leaves it time to save what it did. stderr stays apart, for progress bars and pipes.
    """
    session.run(
        *words,
        env={
            "PATH": os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", "")]),
            **environment,
        },
        external=True,
        stderr=None,
        interrupt_timeout=20.0,
        terminate_timeout=5.0,
    )


# ---- the shared environment --------------------------------------------------------------------


def prepare(session: nox.Session) -> None:
    """Create and fill the shared environment, unless it holds what pyproject.toml asks for."""
    session.chdir(ROOT)
    project = nox.project.load_toml(ROOT / "pyproject.toml")
    here = {"python": sys.version, "base": sys.base_prefix, "checkout": str(ROOT)}
    asked = {key: project[key] for key in ("build-system", "project", "dependency-groups")}
    try:
        installed = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        installed = {"here": None, "asked": None}
    if installed == {"here": here, "asked": asked}:
        return
    if line := unsupported():
        session.error(line)
    if installed["here"] != here:
        session.run_install(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
    STAMP.unlink(missing_ok=True)
    groups = nox.project.dependency_groups(project, "dev")
    session.run_install(
        str(PYTHON), "-m", "pip", "install", "--editable", ".[torch]", *groups, external=True
    )
    STAMP.write_text(json.dumps({"here": here, "asked": asked}), "utf-8")


def prepare_peers(session: nox.Session) -> None:
    """Add the other engines to the shared environment, unless it holds those of pyproject.toml.

    llama.cpp is built for this very machine, which takes 6 to 10 minutes once; pip must not take
    a wheel that was built for another one.
    """
    project = nox.project.load_toml(ROOT / "pyproject.toml")
    asked = project["project"]["optional-dependencies"]["peers"]
    with suppress(OSError, ValueError):
        if json.loads(PEERS_STAMP.read_text("utf-8")) == asked:
            return
    native = [name for name in asked if name.startswith(NATIVE)]
    ready = [name for name in asked if name not in native]
    pip = (str(PYTHON), "-m", "pip", "install")
    session.run_install(*pip, *ready, external=True)
    if not any(map(shutil.which, [os.environ.get("CXX", "c++"), "g++", "clang++"])):
        session.warn(
            "no C++ compiler found, so llama.cpp is not built and its cells will say so; install "
            "one (Debian: apt-get install g++, macOS: xcode-select --install) and run this again"
        )
        return
    session.run_install(
        *pip, "--no-cache-dir", "--no-binary", NATIVE, *native,
        external=True, env={"CMAKE_ARGS": "-DGGML_NATIVE=ON"},
    )  # fmt: skip
    PEERS_STAMP.write_text(json.dumps(asked), "utf-8")


def unsupported(
    pointer_bytes: int = struct.calcsize("P"),
    memory_bytes: float | None = None,
    disk_bytes: float | None = None,
) -> str:
    """One line that says why Edgewise with PyTorch cannot be installed here, or ""."""
    memory = memory_limit() if memory_bytes is None else memory_bytes
    disk = shutil.disk_usage(ROOT).free if disk_bytes is None else disk_bytes
    if pointer_bytes < 8:
        return (
            f"this Python is {8 * pointer_bytes}-bit ({platform.machine()}); Numba and PyTorch "
            "need a 64-bit one: install a 64-bit system, e.g. Raspberry Pi OS (64-bit)"
        )
    if 0 < memory < NEEDED_MEMORY:
        return (
            f"this machine has {memory / 2**30:.1f} GiB of memory, and training needs "
            f"{NEEDED_MEMORY / 2**30:.1f} GiB; to measure and project without PyTorch, see "
            "'A board without PyTorch' in README.md"
        )
    if disk < NEEDED_DISK:
        return (
            f"{disk / 2**30:.1f} GiB are free in {ROOT}, and the environment needs "
            f"{NEEDED_DISK / 2**30:.1f} GiB"
        )
    return ""


def memory_limit() -> float:
    """Memory and swap of this machine, or what a container grants of them; 0 when unknown."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0
    kibibytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    total = 1024 * (kibibytes["MemTotal"] + kibibytes.get("SwapTotal", 0))
    try:
        granted = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
    except OSError:
        return total
    return min(total, int(granted)) if granted.isdecimal() else total
