"""The thresholded ffn in the engine."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness.ffns import _skipping
from kernels.maths import silu
from kernels.simd import OPTIONS, PART
from kernels.spec import Array

THRESHOLD = 3  # place of the threshold in the spec


@njit(**OPTIONS)
def activate(values: Array, at: int, m: int) -> None:
    x = values[at : at + m]
    for i in range(m):
        x[i] = silu(x[i])


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
    """Add the ffn of n normed tokens to the residual.

    offsets: gate up down threshold, then their ends.
    """
    _skipping.run(
        prepare, multiply, activation_bytes, activate, thread, threads, block, n, dims, weights,
        offsets, scratch, prepared, small[offsets[THRESHOLD]],
    )  # fmt: skip
