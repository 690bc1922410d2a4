"""Python command -> an SVG of where its time went, by py-spy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import CannotWrite

# Samples a second. Python frames only: compiled steps carry no symbols, and with --native py-spy
# loses its way in them and splits the graph.
RATE = 100
TIMEOUT_SECONDS = 900.0


def record(command: Sequence[str], path: Path, environment: Mapping[str, str]) -> str:
    """Run the command under py-spy and write its flame graph to `path`.

    Returns "" or, when there is no graph, one line that says why and what to do. py-spy starts
    the command itself, which needs no right to trace other processes. Raises CannotWrite.
    """
    spy = find()
    if spy is None:
        return "no flame graph: py-spy is not installed; pip install py-spy"
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        graph = Path(folder) / "flame.svg"
        words = [spy, "record", "--format", "flamegraph", "--rate", str(RATE)]
        try:
            done = subprocess.run(
                [*words, "--output", str(graph), "--", *command],
                env=dict(environment),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"no flame graph: py-spy could not run: {error}"
        if done.returncode or not graph.exists() or "<svg" not in graph.read_text("utf-8"):
            return _reason(done.stderr)
        _keep(graph, path)
    return ""


def find() -> str | None:
    """The py-spy of this environment, else the one on the PATH."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _keep(graph: Path, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(graph, path)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error}") from error


def _reason(stderr: str) -> str:
    """One line out of what py-spy complained about."""
    text = stderr.lower()
    if "permission" in text or "root" in text or "ptrace" in text:
        remedy = (
            "run it with sudo" if sys.platform == "darwin" else "sudo sysctl "
            "kernel.yama.ptrace_scope=0 allows it, in a container --cap-add SYS_PTRACE"
        )  # fmt: skip
        return f"no flame graph: py-spy may not trace processes here; {remedy}"
    last = (stderr.strip().splitlines() or ["it wrote none"])[-1]
    return f"no flame graph: py-spy failed: {last}"
