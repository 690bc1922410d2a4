"""Threads that wait inside compiled code for the next job, and sleep when none comes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from harness.records import Array
from kernels.simd import OPTIONS
from kernels.team import PARKED, SEQUENCE, STOP, atomic_add, atomic_load, atomic_store, shared_block

PATIENCE = 20_000  # time slices given away, some milliseconds, before a thread goes to sleep


@njit(**OPTIONS)
def post(block: Array) -> int:
    """Announce the next job; returns how many threads sleep and must be woken."""
    atomic_add(block, SEQUENCE, 1)
    return atomic_load(block, PARKED)


@njit(**OPTIONS)
def park(block: Array, seen: int) -> bool:
    """Note that this thread goes to sleep, unless a job came in meanwhile."""
    atomic_add(block, PARKED, 1)
    if atomic_load(block, SEQUENCE) == seen:
        return True
    atomic_add(block, PARKED, -1)
    return False


@njit(**OPTIONS)
def unpark(block: Array) -> None:
    atomic_add(block, PARKED, -1)


@njit(**OPTIONS)
def halt(block: Array) -> None:
    atomic_store(block, STOP, 1)
    atomic_add(block, SEQUENCE, 1)


@dataclass(frozen=True, slots=True)
class Crew:
    """`threads` - 1 helpers beside the caller. `enter` is a plan's, `arrays` what it works on."""

    threads: int
    enter: Callable[..., int]
    arrays: Sequence[Array]
    job: Array = field(default_factory=lambda: np.zeros(3, np.int64))
    block: Array = field(default_factory=shared_block)
    helpers: list[threading.Thread] = field(default_factory=list)
    wake: threading.Condition = field(default_factory=threading.Condition)


def start(crew: Crew, cores: Sequence[int] = ()) -> None:
    """Start the helpers; thread i is pinned to cores[i] where the system can do that."""
    for thread in range(1, crew.threads):
        helper = threading.Thread(target=_serve, args=(crew, thread, cores), daemon=True)
        helper.start()
        crew.helpers.append(helper)
    if crew.threads > 1:
        _pin(0, cores)


def run(crew: Crew, n: int, depth: int, first_logit: int) -> None:
    """Do one job on all threads and return when it is done."""
    crew.job[0], crew.job[1], crew.job[2] = n, depth, first_logit
    if crew.threads > 1 and post(crew.block):
        with crew.wake:
            crew.wake.notify_all()
    crew.enter(0, crew.threads, crew.block, crew.job, 0, PATIENCE, *crew.arrays)


def stop(crew: Crew) -> None:
    """End the helpers; safe to call twice."""
    if not crew.helpers:
        return
    halt(crew.block)
    with crew.wake:
        crew.wake.notify_all()
    for helper in crew.helpers:
        helper.join()
    crew.helpers.clear()


def _serve(crew: Crew, thread: int, cores: Sequence[int]) -> None:
    _pin(thread, cores)
    seen = 0
    while True:
        seen = crew.enter(thread, crew.threads, crew.block, crew.job, seen, PATIENCE, *crew.arrays)
        if seen < 0:
            return
        with crew.wake:
            if park(crew.block, seen):
                # the timeout only guards against a lost wake-up; a job in between is seen at once
                crew.wake.wait(timeout=1.0)
                unpark(crew.block)


def _pin(thread: int, cores: Sequence[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores[thread % len(cores)]})
