"""Y = X W^T for n vectors at once, weights of -1, 0 and 1 and int8 x.

Sizes: n vectors, m rows, k columns. The layout is that of matvec_ternary; tiles of
several row blocks and vectors share what is read (see tiles.py).
"""

from __future__ import annotations

from numba import njit

from kernels import tile_steps as steps
from kernels import tiles
from kernels.matvec_ternary import RECORD, WEIGHTS, lookup
from kernels.matvec_ternary import multiply as single
from kernels.products import matmul
from kernels.rounding import GROUP_BYTES, SCALE, SUM
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
    groups = (k + 31) // 32
    between = groups * RECORD
    p, x = start + block * between, at
    for _ in range(groups):
        total = steps.crumb_starts(tiles.integers(sums), activations, x + SUM, stride)
        for i in range(2):
            total = steps.crumb_dots(
                total, weights, p + 32 + 64 * i, between, activations, x + 16 * i, stride
            )
        sums = steps.add_scaled(sums, total, weights, p, between, activations, x + SCALE, stride)
        p, x = p + RECORD, x + GROUP_BYTES
    tiles.put(sums, out, to + block * LANES, pitch, accumulate)


multiply = tiles.product(_tile, single, tiles.GROUPED)

SPEC = matmul("matmul_ternary", WEIGHTS, multiply)
