"""The source of a forward pass -> a module that compiles once, in a folder that knows when.

The module is written to a folder named by the hash of everything that shapes the machine code
(kernel and engine sources, Numba, CPU), because Numba's own cache does not notice an edit in
another file. Plain module-level functions are what that cache can hold.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np

import kernels
from harness import plugins
from harness.checkpoint import folder
from harness.engines.numba.source import write
from harness.errors import HarnessError
from harness.records import Checkpoint
from kernels import laps, lowering

SOURCES = Path(__file__).parents[2]


def load(checkpoint: Checkpoint) -> ModuleType:
    """The compiled-on-first-use module for this checkpoint's architecture and formats."""
    text = write(checkpoint)
    name = f"plan_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    path = _home() / f"{name}.py"
    if not _holds(path, text):
        _write_atomically(path, text)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HarnessError(f"the plan {path} cannot be imported; delete it and try again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except RuntimeError:
        # Numba refuses when it may write nowhere: compile in each process, then.
        exec(compile(text.replace("cache=True, ", ""), path, "exec"), vars(module))
    return module


def renew(module: ModuleType) -> None:
    """Forget what was compiled of a plan, here and on disk, as when its file turns out broken."""
    path = Path(str(module.__file__))
    for file in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        with suppress(OSError):
            file.unlink()
    del sys.modules[path.stem]


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text("utf-8") == text
    except (OSError, ValueError):
        return False


def first_seconds(module: ModuleType, seconds: float) -> float:
    """What the first load of this plan took, which compiled it; `seconds` if this is the first."""
    path = Path(str(module.__file__)).with_suffix(".seconds")
    try:
        return float(path.read_text("utf-8"))
    except (OSError, ValueError):
        with suppress(OSError):  # a cache that cannot be written has compiled just now
            path.write_text(repr(seconds), "utf-8")
        return seconds


@cache
def fingerprint() -> str:
    """Hash of all that decides what machine code comes out."""
    digest = hashlib.sha256()
    roots = [Path(kernels.__file__).parent, SOURCES / "mixers", SOURCES / "ffns"]
    roots.append(Path(__file__).parent)
    if user := os.environ.get(plugins.PLUGINS):
        roots.append(Path(user))
    files = [p for root in roots for p in root.rglob("*.py")] + [SOURCES / "arena.py"]
    for path in sorted(files):
        digest.update(path.name.encode() + path.read_bytes())
    cpu = numba.core.config.CPU_NAME or llvm.get_host_cpu_name()
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    digest.update(repr((versions, cpu, lowering.features(), laps.ON)).encode())
    return digest.hexdigest()[:16]


def _home() -> Path:
    return folder() / "plans" / fingerprint()


def _write_atomically(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".plan-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise HarnessError(
            f"cannot write the plan {path}: {error}; set EDGEWISE_CACHE to a writable folder"
        ) from error
