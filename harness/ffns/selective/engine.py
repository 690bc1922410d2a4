"""The selective ffn in the engine: score, choose, then touch only the chosen groups."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness import arena
from harness.ffns import _running
from kernels import choice, selector
from kernels.simd import PART
from kernels.spec import Array

INNER, OUTER, BIAS = range(3, 6)  # places of the selector's tensors in the spec


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

    offsets: gate up down selector_in selector_out selector_bias, then their ends.
    """
    width, g = dims[arena.WIDTH], dims[arena.HIDDEN] // dims[arena.GROUP]
    normed = _running.normed(thread, threads, block, n, dims)
    scores = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
    inner = scores + n * g + choice.table_size(n, g)
    for t in range(n):
        selector.score(
            scratch, normed + t * width, width, dims[arena.RANK], g, small, offsets[INNER],
            offsets[OUTER], offsets[BIAS], scratch, inner, scratch, scores + t * g,
        )  # fmt: skip
    _running.run(
        prepare, multiply, activation_bytes, thread, threads, block, n, dims, weights, offsets,
        scratch, prepared, False,
    )  # fmt: skip
