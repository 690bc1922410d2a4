"""The selective ffn in the engine: score, choose, then touch only the chosen groups."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness import arena
from kernels import selective_ffn, selector
from kernels.simd import LANES, OPTIONS
from kernels.spec import Array
from kernels.team import barrier, share

GATE, UP, DOWN, INNER, OUTER, BIAS = range(6)  # places of the tensors in the spec
DOWN_END = 6 + DOWN


@njit(**OPTIONS)
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
    """Add the ffn of n normed tokens to the residual, token by token.

    offsets: gate up down selector_in selector_out selector_bias, then
    their ends. Every thread
    scores for itself, which is cheaper than waiting for one that does.
    """
    width, hidden, w = dims[arena.WIDTH], dims[arena.HIDDEN], dims[arena.GROUP]
    g, rank, wide, residual = hidden // w, dims[arena.RANK], dims[arena.WIDE], dims[arena.RESIDUAL]
    down_bytes = (offsets[DOWN_END] - offsets[DOWN]) // g
    normed = dims[arena.NORMED] + thread * dims[arena.NORMED_PITCH]
    mine = thread * dims[arena.PREPARED_PITCH]
    own = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
    first, last = share((width + LANES - 1) // LANES, thread, threads)
    for t in range(n):
        at = normed + t * width
        selector.score(
            scratch, at, width, rank, g, small, offsets[INNER], offsets[OUTER], offsets[BIAS],
            scratch, own + 2 * g, scratch, own,
        )  # fmt: skip
        # the list of groups takes the place of the scores' neighbours: small whole numbers are
        # exact in float32, and scratch has one element type
        count = selective_ffn.choose(scratch, own, g, scratch, own + g)
        begin, end = share(count, thread, threads)
        prepare(scratch, at, width, prepared, mine)
        selective_ffn.gather(
            multiply, weights, offsets[GATE], offsets[UP], prepared, mine, width, g, w,
            scratch, own + g, begin, end, scratch, wide,
        )  # fmt: skip
        barrier(block, threads)
        selective_ffn.scatter(
            prepare, multiply, weights, offsets[DOWN], down_bytes, scratch, wide, w, width,
            scratch, own + g, count, prepared, mine, first, last, scratch, residual + t * width,
        )  # fmt: skip
        barrier(block, threads)
