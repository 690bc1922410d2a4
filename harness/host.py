"""This machine -> Environment: what a measurement ran on."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import platform
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from harness import machine
from harness.cores import ROOT, affinity_for, pin, usable_cores, usable_cpus
from harness.errors import HarnessError
from harness.records import Environment
from targets import profile

__all__ = ["affinity_for", "describe", "finished", "pin", "recognised", "require_supported"]

LIBRARIES = ("edgewise", "numpy", "numba", "llvmlite")
NEEDED_BYTES = 192 * 2**20  # Numba compiling a decode step, and a small model


class Recognisable(Protocol):
    """What a device profile offers to be found by."""

    @property
    def name(self) -> str: ...
    @property
    def recognise(self) -> tuple[str, ...]: ...


def describe(root: Path = ROOT, devices: Path | None = None) -> Environment:
    """The machine and the software now, without its limits.

    devices: a folder of the user's own device profiles. Raises ProfileError on a broken one.
    """
    cpus = usable_cpus(root)
    first = affinity_for(1, root)[0] if cpus else 0
    commit, dirty = checkout()
    clock, temperature = machine.clock_hz(first, root), machine.temperature_celsius(root)
    return Environment(
        host=machine.hostname(root),
        device=recognised(machine.identity(root), _recognisable(devices)),
        cpu=machine.cpu_model(root),
        cores=usable_cores(root),
        memory_bytes=machine.memory_bytes(root),
        caches=machine.caches(first, root),
        governor=machine.governor(first, root),
        affinity=cpus,
        versions=versions(),
        commit=commit,
        dirty=dirty,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        clock_hz=() if clock is None else (clock,),
        temperature_celsius=() if temperature is None else (temperature,),
    )


def finished(environment: Environment, root: Path = ROOT) -> Environment:
    """The same environment with the clock and the temperature of now as the ones at the end."""
    first = affinity_for(1, root)[0] if usable_cpus(root) else 0
    clock, temperature = machine.clock_hz(first, root), machine.temperature_celsius(root)
    return replace(
        environment,
        clock_hz=environment.clock_hz[:1] + (() if clock is None else (clock,)),
        temperature_celsius=environment.temperature_celsius[:1]
        + (() if temperature is None else (temperature,)),
    )


def recognised(identity: Iterable[str], devices: Iterable[Recognisable]) -> str:
    """The name of the device with the longest pattern that fits a text of the identity.

    "" when none does, or two devices are equally good. Patterns are those of a shell, upper or
    lower case: "Raspberry Pi 4 Model B*", "Apple M1".
    """
    texts = [text.lower() for text in identity]
    matched: dict[int, set[str]] = {}
    for device in devices:
        for pattern in device.recognise:
            if fnmatch.filter(texts, pattern.lower()):
                matched.setdefault(len(pattern), set()).add(device.name)
    best = matched[max(matched)] if matched else set()
    return best.pop() if len(best) == 1 else ""


def require_supported(root: Path = ROOT, pointer_bytes: int = struct.calcsize("P")) -> None:
    """Raise HarnessError, in one line, where Edgewise cannot run at all."""
    if pointer_bytes < 8:
        raise HarnessError(
            f"this Python is {8 * pointer_bytes}-bit ({platform.machine()}); Numba needs a 64-bit "
            "one: install a 64-bit system, e.g. Raspberry Pi OS (64-bit)"
        )
    free = machine.available_bytes(root)
    if 0 < free < NEEDED_BYTES:
        raise HarnessError(
            f"{free / 2**20:.0f} MiB of memory are free; Edgewise needs {NEEDED_BYTES >> 20} MiB: "
            "close programs, add swap or raise the container's limit"
        )


def versions() -> dict[str, str]:
    """Name -> version of Python, the system and each library that shapes a timing."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def checkout(folder: Path = Path(__file__).parent) -> tuple[str, bool]:
    """Commit of the checkout that holds this package and whether its code differs; ("", False)
    where there is none, as after `pip install`.
    """
    # An installed package may lie inside somebody's repository without being part of it.
    if not _git(folder, "ls-files", "__init__.py"):
        return "", False
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--", ".", "../kernels", "../targets")
    return commit, bool(commit and changed)


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _recognisable(folder: Path | None) -> Iterable[Recognisable]:
    return profile.load_all(folder)
