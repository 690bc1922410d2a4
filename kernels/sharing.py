"""Who prepares vectors: one is prepared by every thread for itself, several are shared out.

Waiting for others costs more than preparing one vector again, and less than preparing many.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from kernels.simd import INNER
from kernels.spec import Array
from kernels.team import barrier, share


@njit(**INNER)
def part(n: int, thread: int, threads: int) -> tuple[int, int]:
    """The vectors first..last of n that a thread prepares: all of one, its share of several."""
    return (0, 1) if n == 1 else share(n, thread, threads)


@njit(**INNER)
def owner(n: int, thread: int) -> int:
    """In whose place a thread writes: its own for one vector, that of thread 0 for several."""
    return thread if n == 1 else 0


@njit(**INNER)
def gather(n: int, thread: int, threads: int, block: Array) -> int:
    """Wait until all of n vectors are written; returns in whose place they are."""
    if n > 1:
        barrier(block, threads)
    return owner(n, thread)


@njit(**INNER)
def ready(
    prepare: Callable[..., None],
    x: Array,
    at: int,
    pitch: int,
    k: int,
    n: int,
    prepared: Array,
    place_bytes: int,
    stride: int,
    thread: int,
    threads: int,
    block: Array,
) -> int:
    """Prepare n vectors x[at + t*pitch :][:k], `stride` bytes apart; returns the byte of the first.

    place_bytes: how far apart the places of threads are in `prepared`.
    """
    to = owner(n, thread) * place_bytes
    first, last = part(n, thread, threads)
    for t in range(first, last):
        prepare(x, at + t * pitch, k, prepared, to + t * stride)
    return gather(n, thread, threads, block) * place_bytes
