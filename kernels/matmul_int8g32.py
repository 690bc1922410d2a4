"""Y = X W^T for n vectors at once, int8 weights in groups and int8 x.

Sizes: n vectors, m rows, k columns. The layout is that of matvec_int8g32; tiles of
several row blocks and vectors share what is read (see tiles.py).
"""

from __future__ import annotations

from kernels import grouped, tiles
from kernels import tile_steps as steps
from kernels.matvec_int8g32 import RECORD, WEIGHTS, lookup
from kernels.matvec_int8g32 import multiply as single
from kernels.products import matmul

prepare, activation_bytes, lookup = WEIGHTS.prepare, WEIGHTS.activation_bytes, lookup
multiply = tiles.product(
    grouped.tile(steps.biased_starts, steps.byte_dots, RECORD), single, tiles.GROUPED
)

SPEC = matmul("matmul_int8g32", WEIGHTS, multiply)
