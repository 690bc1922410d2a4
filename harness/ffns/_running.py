"""The engine's half of ffns of groups: what is the same whoever has scored them."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness import arena
from kernels import choice, groups
from kernels.sharing import gather, owner
from kernels.simd import LANES, PART
from kernels.spec import Array
from kernels.team import barrier, share

GATE, UP, DOWN = range(3)  # places of the matrices in every spec


@njit(**PART)
def normed(thread: int, threads: int, block: Array, n: int, dims: Array) -> int:
    """Where the n normed tokens are that this thread scores, once all of them are there.

    Every thread scores for itself, which is cheaper than waiting for one that does.
    """
    return dims[arena.NORMED] + gather(n, thread, threads, block) * dims[arena.NORMED_PITCH]


@njit(**PART)
def run(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    activation_bytes: Callable[[int], int],
    thread: int,
    threads: int,
    block: Array,
    n: int,
    dims: Array,
    weights: Array,
    offsets: Array,
    scratch: Array,
    prepared: Array,
    weighted: bool,
) -> None:
    """Add to the residual what the groups give that each token scored above zero.

    This thread's scores (n, groups) are at dims[OWN] + thread * dims[OWN_PITCH], and the table
    follows them. offsets: gate up down, ..., then their ends. weighted: by the scores.
    """
    width, hidden, w = dims[arena.WIDTH], dims[arena.HIDDEN], dims[arena.GROUP]
    g, wide, residual = hidden // w, dims[arena.WIDE], dims[arena.RESIDUAL]
    source = dims[arena.NORMED] + owner(n, thread) * dims[arena.NORMED_PITCH]
    mine, stride = thread * dims[arena.PREPARED_PITCH], activation_bytes(width)
    for t in range(n):
        prepare(scratch, source + t * width, width, prepared, mine + t * stride)
    scores = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
    table = scores + n * g
    count = choice.choose(scratch, scores, n, g, scratch, table)
    if thread == 0:
        choice.count(scratch, table, g, count, scratch, dims[arena.RAN])
    begin, end = share(choice.units(scratch, table, g, count, w), thread, threads)
    first, last = share((width + LANES - 1) // LANES, thread, threads)
    spare, step = mine + n * stride, activation_bytes(w)
    pitch = (offsets[offsets.size // 2 + GATE] - offsets[GATE]) // g
    # about where the rows of `down` begin that this thread adds, when others add the rest
    rows = (pitch + offsets[GATE] - offsets[DOWN]) * first // ((width + LANES - 1) // LANES)
    for turn in range(2 if threads > 1 else 1):
        for c in range(count):
            record = int(scratch[table + c]) * pitch
            after = int(scratch[table + c + 1]) * pitch if c + 1 < count else -1
            if turn == 0:
                following = -1  # alone, a thread goes on with this group's `down`
                if threads > 1 and int(scratch[table + g + c + 1]) * (w // LANES) < end:
                    following = offsets[GATE] + after
                elif threads > 1:
                    following = offsets[DOWN] + int(scratch[table]) * pitch + rows
                groups.gather(
                    multiply, weights, offsets[GATE] + record, offsets[UP] + record, prepared,
                    mine, stride, spare, n, width, g, w, scratch, table, c, begin, end, following,
                    scratch, wide,
                )  # fmt: skip
                if weighted:
                    groups.weigh(
                        scratch, scores, g, w, scratch, table, c, begin, end, scratch, wide
                    )
            if turn == 1 or threads == 1:
                following = -1
                if after >= 0:
                    following = after + (offsets[GATE] if threads == 1 else offsets[DOWN] + rows)
                groups.scatter(
                    prepare, multiply, weights, offsets[DOWN] + record, following, scratch, wide,
                    2 * w, prepared, spare + n * stride, step, n, g, w, width, scratch, table, c,
                    first, last, scratch, dims[arena.MIXED], scratch, residual,
                )  # fmt: skip
        barrier(block, threads)
