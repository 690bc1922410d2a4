"""Scores of groups of neurons -> a table of who runs what.

A group is `w` neighbouring neurons (a multiple of sixteen); it runs for a vector when that vector's
score of it is above zero. The table is of whole numbers kept as float32 (exact below 2^24), because
scratch has one element type:

    | groups that run (g) | where their vectors begin (g+1) | vectors of the first, of the second...

Sizes: n vectors, g groups, w neurons a group.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.simd import LANES, OPTIONS
from kernels.spec import Array


@njit(**OPTIONS)
def table_size(n: int, g: int) -> int:
    return 2 * g + 1 + n * g


@njit(**OPTIONS)
def choose(scores: Array, at: int, n: int, g: int, table: Array, to: int) -> int:
    """Write the table of scores[at:] (n,g) to table[to:]; returns how many groups run."""
    starts, listed = to + g, to + 2 * g + 1
    count = total = 0
    table[starts] = 0
    for j in range(g):
        before = total
        for t in range(n):
            table[listed + total] = t  # stays only if the next line counts it
            total += 1 if scores[at + t * g + j] > np.float32(0.0) else 0
        if total > before:
            table[to + count] = j
            count += 1
            table[starts + count] = total
    return count


@njit(**OPTIONS)
def vectors(table: Array, at: int, g: int, chosen: int) -> tuple[int, int]:
    """Where the vectors of the `chosen`-th group that runs begin, and how many there are."""
    start = int(table[at + g + chosen])
    return start, int(table[at + g + chosen + 1]) - start


@njit(**OPTIONS)
def vector(table: Array, at: int, g: int, i: int) -> int:
    """The i-th of all vectors in the table."""
    return int(table[at + 2 * g + 1 + i])


@njit(**OPTIONS)
def units(table: Array, at: int, g: int, count: int, w: int) -> int:
    """Row blocks times vectors of all that runs: what threads share in `gather`."""
    return int(table[at + g + count]) * (w // LANES)


@njit(**OPTIONS)
def span(
    table: Array, at: int, g: int, w: int, chosen: int, begin: int, end: int
) -> tuple[int, int]:
    """Row blocks first..last of the `chosen`-th group that runs, which units begin..end hold."""
    (start, count), blocks = vectors(table, at, g, chosen), w // LANES
    first = min(max(begin - start * blocks, 0) // count, blocks)
    return first, min(max(end - start * blocks, 0) // count, blocks)


@njit(**OPTIONS)
def count(table: Array, at: int, g: int, running: int, counts: Array, to: int) -> None:
    """Add to counts[to + t] how many groups vector t runs, of the `running` ones in the table."""
    for i in range(int(table[at + g + running])):
        counts[to + vector(table, at, g, i)] += np.float32(1.0)
