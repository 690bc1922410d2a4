"""Y = X W^T for n vectors at once, int8 weights and int8 x.

Sizes: n vectors, m rows, k columns. The layout is that of matvec_int8; tiles of
several row blocks and vectors share what is read (see tiles.py).
"""

from __future__ import annotations

from numba import njit

from kernels import tile_steps as steps
from kernels import tiles
from kernels.matvec_int8 import WEIGHTS, lookup
from kernels.matvec_int8 import multiply as single
from kernels.products import matmul
from kernels.rounding import HEADER
from kernels.simd import INNER, LANES
from kernels.spec import Array

prepare, activation_bytes, lookup = WEIGHTS.prepare, WEIGHTS.activation_bytes, lookup


@njit(**INNER)
def _tile(
    sums: tiles.Tile,
    weights: Array,
    start: int,
    activations: Array,
    at: int,
    stride: int,
    k: int,
    block: int,
    out: Array,
    to: int,
    pitch: int,
    accumulate: bool,
) -> None:
    """One tile: all columns of whole row blocks from `block` on."""
    wide = (k + 31) // 32 * 32
    between = 64 + wide * LANES
    p = start + block * between
    total = steps.biased_starts(tiles.integers(sums), activations, at + 4, stride)
    for i in range(0, wide, 16):
        total = steps.byte_dots(
            total, weights, p + 64 + LANES * i, between, activations, at + HEADER + i, stride
        )
    sums = steps.scaled(sums, total, weights, p, between, activations, at, stride)
    tiles.put(sums, out, to + block * LANES, pitch, accumulate)


multiply = tiles.product(_tile, single, tiles.PLAIN)

SPEC = matmul("matmul_int8", WEIGHTS, multiply)
