"""The selective ffn in the engine: score, choose, then touch only the chosen groups."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness import arena
from kernels import selective_ffn, selector
from kernels.sharing import gather
from kernels.simd import LANES, PART
from kernels.spec import Array
from kernels.team import barrier, share

GATE, UP, DOWN, INNER, OUTER, BIAS = range(6)  # places of the tensors in the spec
GATE_END = 6 + GATE


@njit(**PART)
def forward(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    activation_bytes: Callable[[int], int],
    thread: int,
    threads: int,
    block: Array,
    n: int,
    dims: Array,
    weights: Array,
    small: Array,
    offsets: Array,
    scratch: Array,
    prepared: Array,
) -> None:
    """Add the ffn of n normed tokens to the residual, group by group over the tokens that chose it.

    offsets: gate up down selector_in selector_out selector_bias, then their ends. Every thread
    scores for itself, which is cheaper than waiting for one that does.
    """
    width, hidden, w = dims[arena.WIDTH], dims[arena.HIDDEN], dims[arena.GROUP]
    g, rank, wide, residual = hidden // w, dims[arena.RANK], dims[arena.WIDE], dims[arena.RESIDUAL]
    reader = gather(n, thread, threads, block)
    normed = dims[arena.NORMED] + reader * dims[arena.NORMED_PITCH]
    mine, stride = thread * dims[arena.PREPARED_PITCH], activation_bytes(width)
    scores = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
    table = scores + n * g
    inner = table + selective_ffn.table_size(n, g)
    for t in range(n):
        selector.score(
            scratch, normed + t * width, width, rank, g, small, offsets[INNER], offsets[OUTER],
            offsets[BIAS], scratch, inner, scratch, scores + t * g,
        )  # fmt: skip
        prepare(scratch, normed + t * width, width, prepared, mine + t * stride)
    count = selective_ffn.choose(scratch, scores, n, g, scratch, table)
    begin, end = share(selective_ffn.units(scratch, table, g, count, w), thread, threads)
    first, last = share((width + LANES - 1) // LANES, thread, threads)
    spare, step = mine + n * stride, activation_bytes(w)
    pitch = (offsets[GATE_END] - offsets[GATE]) // g
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
                selective_ffn.gather(
                    multiply, weights, offsets[GATE] + record, offsets[UP] + record, prepared,
                    mine, stride, spare, n, width, g, w, scratch, table, c, begin, end, following,
                    scratch, wide,
                )  # fmt: skip
            if turn == 1 or threads == 1:
                following = -1
                if after >= 0:
                    following = after + (offsets[GATE] if threads == 1 else offsets[DOWN] + rows)
                selective_ffn.scatter(
                    prepare, multiply, weights, offsets[DOWN] + record, following, scratch, wide,
                    prepared, spare + n * stride, step, n, g, w, width, scratch, table, c,
                    first, last, scratch, dims[arena.MIXED], scratch, residual,
                )  # fmt: skip
        barrier(block, threads)
