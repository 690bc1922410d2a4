"""The engine's half of ffns that make every gate and then skip groups whose gates are shut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from harness import arena
from kernels import choice, groups
from kernels.sharing import owner, ready
from kernels.simd import LANES, PART
from kernels.spec import Array
from kernels.team import barrier, share

GATE, UP, DOWN = range(3)  # places of the matrices in both specs


@njit(**PART)
def run(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    activation_bytes: Callable[[int], int],
    activate: Callable[..., None],
    thread: int,
    threads: int,
    block: Array,
    n: int,
    dims: Array,
    weights: Array,
    offsets: Array,
    scratch: Array,
    prepared: Array,
    least: np.float32,
) -> None:
    """Add to the residual what the groups give that have an activated gate further than `least`
    from zero.

    activate(values, at, m): gates to their activation, in place. offsets: gate up down, ..., then
    their ends; `up` and `down` are records of groups, `gate` is one matrix.
    """
    width, hidden, w = dims[arena.WIDTH], dims[arena.HIDDEN], dims[arena.GROUP]
    g, gates, residual = hidden // w, dims[arena.WIDE], dims[arena.RESIDUAL]
    place, stride = dims[arena.PREPARED_PITCH], activation_bytes(width)
    normed = dims[arena.NORMED] + owner(n, thread) * dims[arena.NORMED_PITCH]
    mine = ready(
        prepare, scratch, normed, width, width, n, prepared, place, stride, thread, threads, block
    )
    first, last = share((hidden + LANES - 1) // LANES, thread, threads)
    multiply(
        weights, offsets[GATE], prepared, mine, stride, n, width, hidden, first, last,
        scratch, gates, hidden, False,
    )  # fmt: skip
    begin, end = first * LANES, min(last * LANES, hidden)
    for t in range(n):  # the rows this thread projected itself, so nobody has to wait
        activate(scratch, gates + t * hidden + begin, end - begin)
    barrier(block, threads)

    scores = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
    table, wide = scores + n * g, gates + n * hidden
    for i in range(n * g):
        largest = np.float32(0.0)
        for r in range(w):
            largest = max(largest, abs(scratch[gates + i * w + r]))
        scratch[scores + i] = largest - least
    count = choice.choose(scratch, scores, n, g, scratch, table)
    if thread == 0:
        choice.count(scratch, table, g, count, scratch, dims[arena.RAN])
    begin, end = share(choice.units(scratch, table, g, count, w), thread, threads)
    first, last = share((width + LANES - 1) // LANES, thread, threads)
    # a thread copies vectors and prepares neurons in its own room, behind what all of them read
    spare = thread * place + n * stride
    step, pitch = activation_bytes(w), (offsets[offsets.size // 2 + UP] - offsets[UP]) // g
    for c in range(count):
        record = int(scratch[table + c]) * pitch
        groups.gather_beside(
            multiply, weights, offsets[UP] + record, prepared, mine, stride, spare, n, width, g, w,
            scratch, table, c, begin, end, -1, scratch, gates, scratch, wide,
        )  # fmt: skip
    barrier(block, threads)
    for c in range(count):
        record = int(scratch[table + c]) * pitch
        groups.scatter(
            prepare, multiply, weights, offsets[DOWN] + record, -1, scratch, wide, w, prepared,
            spare + n * stride, step, n, g, w, width, scratch, table, c, first, last, scratch,
            dims[arena.MIXED], scratch, residual,
        )  # fmt: skip
    barrier(block, threads)
