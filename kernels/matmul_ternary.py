"""Y = X W^T for n vectors at once, weights of -1, 0 and 1 and int8 x.

Sizes: n vectors, m rows, k columns. The layout is that of matvec_ternary; tiles of
several row blocks and vectors share what is read (see tiles.py).
"""

from __future__ import annotations

from kernels import grouped, tiles
from kernels import tile_steps as steps
from kernels.matvec_ternary import RECORD, WEIGHTS, lookup
from kernels.matvec_ternary import multiply as single
from kernels.products import matmul

prepare, activation_bytes, lookup = WEIGHTS.prepare, WEIGHTS.activation_bytes, lookup
multiply = tiles.product(
    grouped.tile(steps.crumb_starts, steps.crumb_dots, RECORD), single, tiles.GROUPED
)

SPEC = matmul("matmul_ternary", WEIGHTS, multiply)
