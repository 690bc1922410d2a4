"""Groups -> their cells, each group in a fresh process, stored as soon as it is done."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from harness import host, limits, plugins, store
from harness.cores import affinity_for, usable_cores
from harness.engines.numba import plan
from harness.peers import groups
from harness.peers.frame import Cell, Group, Setup, failed

SCHEMA = 1
PACKAGES = ("torch", "onnxruntime", "llama-cpp-python")
QUICK_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A group that was measured: its cells, and what its peers say of themselves.

    key: hash of what went in; a stored group of another key is measured again
    """

    group: str
    key: str
    cells: tuple[Cell, ...]
    peers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    quick: bool = False
    schema: int = SCHEMA


class Watch(Protocol):
    """Who is told how far the run is."""

    def starts(self, group: str, cells: int) -> None: ...
    def says(self, group: str, text: str) -> None: ...
    def cell(self, group: str, cell: Cell) -> None: ...


def setup(quick: bool = False) -> Setup:
    """This machine, with 1, 2, 4 ... and all of its cores."""
    counts = limits.thread_counts(usable_cores())
    cpus = affinity_for(counts[-1])
    if quick:
        return Setup(threads=counts[:2], cpus=cpus, rounds=QUICK_ROUNDS, quick=True)
    return Setup(threads=counts, cpus=cpus)


def run(
    names: Sequence[str], folder: Path, watch: Watch, *, fresh: bool = False, quick: bool = False
) -> list[Done]:
    """Measure these groups, or take what `folder` holds of them, in order. Raises UnknownName."""
    chosen = [plugins.pick(groups.every(), name, "group") for name in names]
    given = setup(quick)
    found = []
    for group in chosen:
        cells = len(group.plan(given))
        watch.starts(group.name, cells)
        done = None if fresh else load(folder, group, given)
        if done is None:
            done = measure(group, given, watch)
            keep(folder, done)
        else:
            for cell in done.cells:
                watch.cell(group.name, cell)
        found.append(done)
    return found


def measure(group: Group, given: Setup, watch: Watch) -> Done:
    """One group in a process of its own. What ends that process fails the cells to come."""
    begin = time.monotonic()
    cells: list[Cell] = []
    peers: dict[str, str] = {}
    planned = dict(group.plan(given))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process, answers = _start(group, given, errors)
        hung = threading.Timer(group.timeout, _kill, (process,))
        hung.start()
        ended = False
        try:
            for line in answers:
                answer = json.loads(line)
                peers |= answer.get("peers", {})
                ended = ended or "done" in answer
                if "say" in answer:
                    watch.says(group.name, answer["say"])
                if "cell" in answer:
                    cells.append(Cell(**answer["cell"]))
                    planned.pop(cells[-1].cell, None)
                    watch.cell(group.name, cells[-1])
            code = process.wait()
        finally:
            hung.cancel()
            _kill(process)
            answers.close()
        if not ended:
            reason = _reason(code, errors, time.monotonic() - begin >= group.timeout)
            cells += [failed(name, bar, reason) for name, bar in planned.items()]
    return Done(
        group=group.name,
        key=key(group, given),
        cells=tuple(cells),
        peers=peers,
        environment=asdict(host.describe()),
        seconds=time.monotonic() - begin,
        quick=given.quick,
    )


def _start(group: Group, given: Setup, errors: IO[str]) -> tuple[subprocess.Popen[str], IO[str]]:
    job: dict[str, Any] = {"group": group.name, "threads": given.threads, "cpus": given.cpus}
    job |= {"rounds": given.rounds, "quick": given.quick}
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    # Peers wait for work as they do by default: `rounds` lets them fall asleep between turns, and a
    # passive wait doubles the time of PyTorch's small products on two threads.
    changes = {"PYTHONPATH": path, "OMP_WAIT_POLICY": None, **group.environment}
    environment = {**os.environ, **changes}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.peers.worker", json.dumps(job)],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={name: value for name, value in environment.items() if value is not None},
        start_new_session=True,
    )
    if process.stdout is None:
        raise RuntimeError("a process started with a pipe has one")
    return process, process.stdout


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(code: int, errors: IO[str], hung: bool) -> str:
    if hung:
        return "the group's process hung and was stopped"
    errors.seek(0)
    lines = [line for line in errors.read().splitlines() if line.strip()]
    return f"the group's process ended ({code}): {lines[-1] if lines else 'no message'}"


def key(group: Group, given: Setup) -> str:
    """Hash of our kernels, engines and bench, the group, peers' versions, what it is told."""
    versions = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    told = (plan.fingerprint(), versions, given.threads, given.cpus, given.rounds, given.quick)
    digest = hashlib.sha256(repr(told).encode())
    here = Path(__file__).parent
    shared = sorted([*here.glob("*.py"), *(here.parent / "engines").rglob("*.py")])
    for path in (*shared, Path(sys.modules[group.cells.__module__].__file__ or "")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def keep(folder: Path, done: Done) -> Path:
    """One JSON object a line: the group, then each of its cells. Raises CannotWrite."""
    head = {name: value for name, value in asdict(done).items() if name != "cells"}
    lines = [json.dumps(entry) for entry in (head, *map(asdict, done.cells))]
    path = _file(folder, done.group)
    store.write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def load(folder: Path, group: Group, given: Setup) -> Done | None:
    """What is stored of a group, unless anything that went in has changed since."""
    try:
        lines = _file(folder, group.name).read_text("utf-8").splitlines()
        head, *cells = (json.loads(line) for line in lines)
        done = Done(**head, cells=tuple(Cell(**cell) for cell in cells))
    except (OSError, ValueError, TypeError):
        return None
    return done if (done.schema, done.key) == (SCHEMA, key(group, given)) else None


def _file(folder: Path, group: str) -> Path:
    return folder / "groups" / f"{group}.jsonl"
