"""The mixture of experts in the engine: route, then touch only the chosen groups."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness import arena
from harness.ffns import _running
from kernels import router
from kernels.simd import PART
from kernels.spec import Array

ROUTER = 3  # place of the router in the spec


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
    """Add the ffn of n normed tokens to the residual. offsets: gate up down router, their ends."""
    width, g = dims[arena.WIDTH], dims[arena.HIDDEN] // dims[arena.GROUP]
    normed = _running.normed(thread, threads, block, n, dims)
    scores = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
    table = scores + n * g  # not made yet: scratch until then
    for t in range(n):
        router.route(
            scratch, normed + t * width, width, g, dims[arena.CHOSEN], small, offsets[ROUTER],
            scratch, table, scratch, scores + t * g,
        )  # fmt: skip
    _running.run(
        prepare, multiply, activation_bytes, thread, threads, block, n, dims, weights, offsets,
        scratch, prepared, True,
    )  # fmt: skip
