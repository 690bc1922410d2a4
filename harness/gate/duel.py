"""Two trees + items -> pairs of times, taken in turns by two fresh workers on one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.cores import affinity_for
from harness.errors import WorkerFailed
from harness.gate.verdict import Pair

SCRIPT = Path(__file__).with_name("worker.py")
SHORTEST_CALL = 20e-6  # a kernel grows to this, so that a call is worth more than its overhead
SHORTEST_SAMPLE = 2e-3
MOST_DOUBLINGS = 48
PATIENCE = 600.0  # of one generation, compiling included [s]
DROPPED = ("EDGEWISE_PLUGINS", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


@dataclass(frozen=True, slots=True)
class Setting:
    """How an item is timed on both sides: kernel sizes, and calls of one sample."""

    sizes: Mapping[str, int]
    loops: int


@dataclass(frozen=True, slots=True)
class Generation:
    """pairs: times by item; absent: items that base cannot run, with the reason."""

    pairs: Mapping[str, tuple[Pair, ...]]
    settings: Mapping[str, Setting]
    absent: Mapping[str, str]


@dataclass(slots=True)
class _Worker:
    side: str
    process: subprocess.Popen[str]
    requests: IO[str]
    answers: IO[str]
    errors: IO[bytes]
    stopped: threading.Event = field(default_factory=threading.Event)
    asked: str = "start"


def fight(
    base: Path,
    now: Path,
    items: Sequence[str],
    rounds: int,
    *,
    cache: Path,
    settings: Mapping[str, Setting] | None = None,
    patience: float = PATIENCE,
) -> Generation:
    """One generation of `rounds` pairs of each item, orders alternating: A B, B A, ...

    settings: those of an earlier generation; without them the tree `now` finds them. An item that
    `base` lacks is timed in `now` alone, and its pairs hold that time twice.
    Raises WorkerFailed when a worker dies or hangs, or `now` cannot run an item.
    """
    with ExitStack() as stack:
        old = stack.enter_context(_worker("base", base, cache, patience))
        new = stack.enter_context(_worker("working tree's", now, cache, patience))
        absent, found = _prepare(old, new, items, dict(settings or {}))
        cpus = list(affinity_for(1))
        for worker in (old, new):
            _told(worker, _ask(worker, "start", {"cpus": cpus}))
        pairs: dict[str, list[Pair]] = {item: [] for item in items}
        for turn in range(rounds):
            for place, item in enumerate(items):
                loops = found[item].loops
                order = (new,) if item in absent else (old, new)
                if (turn + place) % 2:
                    order = order[::-1]
                times = {worker.side: _seconds(worker, item, loops) for worker in order}
                pairs[item].append((times.get(old.side, times[new.side]), times[new.side]))
    return Generation({item: tuple(p) for item, p in pairs.items()}, found, absent)


def alone(
    root: Path, items: Sequence[str], rounds: int, *, cache: Path, patience: float = PATIENCE
) -> dict[str, tuple[dict[str, int], tuple[float, ...]]]:
    """One tree's items by themselves: sizes, and seconds of a call for each round.

    Raises WorkerFailed when the worker dies, hangs or cannot run an item.
    """
    found = {}
    with _worker("working tree's", root, cache, patience) as worker:
        settings = {}
        for item in items:
            example = _told(worker, _ask(worker, "load", {"item": item}))["sizes"]
            settings[item] = _grow(worker, item, example)
        _told(worker, _ask(worker, "start", {"cpus": list(affinity_for(1))}))
        for item, setting in settings.items():
            times = tuple(_seconds(worker, item, setting.loops) for _ in range(rounds))
            found[item] = (dict(setting.sizes), times)
    return found


def _prepare(
    old: _Worker, new: _Worker, items: Sequence[str], settings: dict[str, Setting]
) -> tuple[dict[str, str], dict[str, Setting]]:
    """Compile on both sides at once, then give both the same sizes."""
    absent = {}
    for item in items:
        for worker in (old, new):
            _send(worker, "load", {"item": item})
        mine, theirs = _told(new, _receive(new)), _receive(old)
        if "error" in theirs:
            absent[item] = theirs["error"]
        if item not in settings:
            settings[item] = _grow(new, item, mine["sizes"])
    for item in items:
        sizes = dict(settings[item].sizes)
        _told(new, _ask(new, "set", {"item": item, "sizes": sizes}))
        if item not in absent:
            answer = _ask(old, "set", {"item": item, "sizes": sizes})
            if answer.get("sizes") != sizes:
                absent[item] = answer.get("error", f"it has no sizes {sizes}")
    return absent, settings


def _grow(worker: _Worker, item: str, example: dict[str, int]) -> Setting:
    """Double one size after another until a call is long enough; then count calls of a sample."""
    sizes, doublings = example, 0
    seconds = _quickest(worker, item)
    while sizes and seconds < SHORTEST_CALL and doublings < MOST_DOUBLINGS:
        grown = list(sizes)[doublings % len(sizes)]
        wanted = {**sizes, grown: 2 * sizes[grown]}
        sizes = _told(worker, _ask(worker, "set", {"item": item, "sizes": wanted}))["sizes"]
        seconds = _quickest(worker, item)
        doublings += 1
    return Setting(sizes, max(1, round(SHORTEST_SAMPLE / max(seconds, 1e-7))))


def _quickest(worker: _Worker, item: str) -> float:
    return min(_seconds(worker, item, 8) for _ in range(5))


def _seconds(worker: _Worker, item: str, loops: int) -> float:
    answer = _told(worker, _ask(worker, "time", {"item": item, "loops": loops}))
    return float(answer["seconds"])


@contextmanager
def _worker(side: str, root: Path, cache: Path, patience: float) -> Iterator[_Worker]:
    """A fresh process with that tree first on its path; killed on leaving."""
    kept = {key: value for key, value in os.environ.items() if key not in DROPPED}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            # -P: the folder of the script must not shadow the standard library
            [sys.executable, "-P", str(SCRIPT), str(root), str(cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=root,
            env={**kept, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process was started without its pipes")
        worker = _Worker(side, process, process.stdin, process.stdout, errors)

        def stop() -> None:
            worker.stopped.set()
            process.kill()

        watch = threading.Timer(patience, stop)
        watch.daemon = True
        watch.start()
        try:
            yield worker
        finally:
            watch.cancel()
            process.kill()
            process.communicate()


def _ask(worker: _Worker, do: str, request: Mapping[str, Any]) -> dict[str, Any]:
    _send(worker, do, request)
    return _receive(worker)


def _send(worker: _Worker, do: str, request: Mapping[str, Any]) -> None:
    worker.asked = f"{do} {request.get('item', '')}".strip()
    line = json.dumps({"do": do, **request}) + "\n"
    try:
        worker.requests.write(line)
        worker.requests.flush()
    except OSError:
        _died(worker)


def _receive(worker: _Worker) -> dict[str, Any]:
    line = worker.answers.readline()
    if not line:
        _died(worker)
    answer: dict[str, Any] = json.loads(line)
    return answer


def _told(worker: _Worker, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, unless it says that the request failed."""
    if "error" in answer:
        raise WorkerFailed(
            f"the gate's {worker.side} worker failed at {worker.asked!r}: {answer['error']}"
        )
    return answer


def _died(worker: _Worker) -> None:
    code = worker.process.wait()
    if worker.stopped.is_set():
        raise WorkerFailed(f"the gate's {worker.side} worker hung at {worker.asked!r}; stopped")
    worker.errors.seek(0)
    lines = worker.errors.read().decode(errors="replace").strip().splitlines()
    raise WorkerFailed(
        f"the gate's {worker.side} worker died at {worker.asked!r} ({code}): "
        f"{lines[-1] if lines else 'no message'}"
    )
