"""Threads that wait inside compiled code for the next job of a session.

A call enters compiled code once, and announcing the job, waking helpers and working all happen
there. So a Ctrl-C is raised before a job or after it, never inside, and no lock is taken.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from harness.errors import BadInput
from harness.records import Array
from kernels.team import shared_block

CALLER, DISMISS = 0, -1  # what `enter` does as this thread: one job, or send the others home


@dataclass(slots=True)
class Crew:
    """`threads` - 1 helpers beside the caller. `enter` is a plan's, `arrays` what it works on.

    process: whose threads the helpers are; a forked child has none of them
    free: the caller's thread, and the cores it might use before it was pinned
    """

    threads: int
    enter: Callable[..., bool]
    arrays: Sequence[Array]
    block: Array = field(default_factory=shared_block)
    helpers: list[threading.Thread] = field(default_factory=list)
    process: int = field(default_factory=os.getpid)
    free: tuple[int, set[int]] | None = None


def start(crew: Crew, cores: Sequence[int] = ()) -> None:
    """Start the helpers; thread i is pinned to cores[i] where the system can do that.

    The caller's thread is pinned as well, until `stop`. Raises BadInput for a core that this
    process may not use.
    """
    if crew.threads == 1:
        return
    if cores and hasattr(os, "sched_setaffinity"):
        crew.free = threading.get_ident(), os.sched_getaffinity(0)
        _try(cores, crew.free[1])
    try:
        for thread in range(1, crew.threads):
            helper = threading.Thread(target=_serve, args=(crew, thread, cores), daemon=True)
            helper.start()
            crew.helpers.append(helper)
    except BaseException:
        stop(crew)
        raise


def run(crew: Crew, n: int, depth: int, first_logit: int) -> None:
    """Do one job on all threads and return when it is done.

    Raises BadInput when the crew was stopped meanwhile or has no helpers, as after a fork.
    """
    if crew.threads > 1 and os.getpid() != crew.process:
        raise BadInput("a session's threads stay in the process that opened it; open another one")
    if crew.enter(CALLER, crew.threads, crew.block, n, depth, first_logit, *crew.arrays):
        raise BadInput("the session's threads were stopped; open another session")


def stop(crew: Crew) -> None:
    """End the helpers, also in the middle of a job; safe to call twice."""
    if not crew.helpers:
        return
    crew.enter(DISMISS, crew.threads, crew.block, 0, 0, 0, *crew.arrays)
    for helper in crew.helpers:
        helper.join()
    crew.helpers.clear()
    if crew.free is not None and crew.free[0] == threading.get_ident():
        with suppress(OSError):  # those cores may be gone
            os.sched_setaffinity(0, crew.free[1])


def _serve(crew: Crew, thread: int, cores: Sequence[int]) -> None:
    try:
        _pin(thread, cores)
        crew.enter(thread, crew.threads, crew.block, 0, 0, 0, *crew.arrays)
    finally:
        # Nobody may wait for a helper that has failed.
        crew.enter(DISMISS, crew.threads, crew.block, 0, 0, 0, *crew.arrays)


def _try(cores: Sequence[int], allowed: set[int]) -> None:
    """Pin the caller to each core in turn, the first one last. Raises BadInput."""
    for core in reversed(cores):
        try:
            os.sched_setaffinity(0, {core})
        except OSError:
            os.sched_setaffinity(0, allowed)
            known = ", ".join(map(str, sorted(allowed)))
            raise BadInput(f"this process may not use core {core}; it may use {known}") from None


def _pin(thread: int, cores: Sequence[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores[thread % len(cores)]})
