"""The ReLU-gated ffn in the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from harness.ffns import _skipping
from kernels.simd import OPTIONS, PART
from kernels.spec import Array


@njit(**OPTIONS)
def activate(values: Array, at: int, m: int) -> None:
    x = values[at : at + m]
    for i in range(m):
        x[i] = max(x[i], np.float32(0.0))


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
    """Add the ffn of n normed tokens to the residual. offsets: gate up down, then their ends."""
    _skipping.run(
        prepare, multiply, activation_bytes, activate, thread, threads, block, n, dims, weights,
        offsets, scratch, prepared, np.float32(0.0),
    )  # fmt: skip
