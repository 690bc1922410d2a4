"""The hashed ffn in the engine: groups by the hash of a token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from harness import arena
from harness.ffns import _running
from kernels.simd import PART
from kernels.spec import Array


@njit(inline="always")
def rank(token: int, group: int) -> np.uint32:
    """A number that says nothing about either: the finaliser of MurmurHash3 (Appleby 2011)."""
    h = np.uint32(token * 0x9E3779B1 + group * 0x85EBCA77 + 0x27D4EB2F)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@njit(**PART)
def choose(token: int, g: int, chosen: int, scores: Array, to: int) -> None:
    """Score 1 for the `chosen` of g groups that rank first for a token, and -1 for the others."""
    for j in range(g):
        mine, before = rank(token, j), 0
        for other in range(g):
            before += 1 if rank(token, other) < mine else 0
        scores[to + j] = np.float32(1.0 if before < chosen else -1.0)


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
    _running.normed(thread, threads, block, n, dims)
    g = dims[arena.HIDDEN] // dims[arena.GROUP]
    scores = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
    for t in range(n):
        token = int(scratch[dims[arena.TOKENS] + t])
        choose(token, g, dims[arena.CHOSEN], scratch, scores + t * g)
    _running.run(
        prepare, multiply, activation_bytes, thread, threads, block, n, dims, weights, offsets,
        scratch, prepared, False,
    )  # fmt: skip
