"""The machine's read limit, and pinned threads, as sides of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from harness import limits
from harness.cores import pin
from harness.peers.frame import Setup
from harness.peers.rounds import Side

T = TypeVar("T")
TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Reader:
    """`side()` reads `amount` bytes of memory and returns the seconds that took."""

    side: Side
    amount: float


def reader(
    setup: Setup, threads: int, size: int = limits.DRAM_BYTES, seconds: float = 0.05
) -> Reader:
    """Read `size` bytes again and again with so many pinned threads, about `seconds` a turn.

    A size that a cache holds gives the limit of that cache.
    """
    from harness import probes  # noqa: PLC0415 - brings numba

    values = np.ones(size // 4, np.float32)
    works = tuple(limits.on(probes.read, part) for part in np.array_split(values, threads))
    task = limits.Task("", setup.cpus[:threads], works, values.nbytes)
    passes = limits.calibrate(task, seconds)
    return Reader(lambda: limits.elapsed(task, passes), float(values.nbytes * passes))


def hire(setup: Setup, threads: int, make: Callable[[], T]) -> T:
    """What `make` returns; threads that it started are pinned, one a core, as ours are.

    The calling thread ends on the first core. `make` must do one whole piece of work, since many
    libraries start their threads late. Where the system has no /proc nothing is pinned.
    """
    pin(setup.cpus)  # what a library sees when it counts cores, and what its threads inherit
    before = _threads()
    made = make()
    cores = setup.cpus[:threads]
    started = sorted(_threads() - before)
    # A pool that grows from two threads to four starts two, and they belong on the last cores.
    places = cores[max(1, threads - len(started)) :] or cores
    for turn, thread in enumerate(started if cores else ()):
        pin(places[turn % len(places) :][:1], thread)
    pin(cores[:1])
    return made


def _threads() -> set[int]:
    return {int(task.name) for task in TASKS.iterdir()} if TASKS.is_dir() else set()
