"""A loop -> cycles of one iteration, by LLVM's model of the core (llvm-mca, if installed)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.asm.cores import Core
from harness.asm.loops import Loop

ITERATIONS = 200
INSTALL = "llvm-mca is not installed; it comes with LLVM: apt install llvm, or brew install llvm"


@dataclass(frozen=True, slots=True)
class Cycles:
    """What llvm-mca says of one iteration; `why` is set where it says nothing."""

    cycles: float | None
    instructions_per_cycle: float | None
    tool: str
    why: str = ""


@cache
def tool() -> str:
    """The newest llvm-mca on the path, or ""."""
    folders = map(Path, os.environ.get("PATH", "").split(os.pathsep))
    found = {p.name for folder in folders for p in folder.glob("llvm-mca-[0-9]*")}
    versions = sorted(int(n) for name in found if (n := name.rpartition("-")[2]).isdecimal())
    numbered = [f"llvm-mca-{versions[-1]}"] if versions else []
    return next((path for name in [*numbered, "llvm-mca"] if (path := shutil.which(name))), "")


def cycles(loop: Loop, core: Core) -> Cycles:
    """Of one iteration in steady state, with every read a hit in the first cache."""
    if not tool():
        return Cycles(None, None, "", INSTALL)
    name = f"{Path(tool()).name} ({version()})"
    text = "\n".join(loop.lines) + "\n"
    command = [
        tool(), f"-mtriple={core.triple}", f"-mcpu={core.name}", f"-iterations={ITERATIONS}",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Cycles(None, None, name, f"{name} failed: {error}")
    complaint = re.search(r"(error: |is not a recognized processor).*", done.stderr)
    total, rate = (_number(done.stdout, key) for key in ("Total Cycles", "IPC"))
    if complaint or total is None:
        reason = complaint[0] if complaint else "no total"
        return Cycles(None, None, name, f"{name} cannot time this loop on {core.name}: {reason}")
    return Cycles(total / ITERATIONS, rate, name)


@cache
def version() -> str:
    done = subprocess.run([tool(), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"LLVM version ([\d.]+)", done.stdout)
    return f"LLVM {found[1]}" if found else "LLVM of unknown version"


def _number(text: str, key: str) -> float | None:
    found = re.search(rf"^{key}:\s+([\d.]+)", text, re.M)
    return float(found[1]) if found else None
