"""Y = X W^T with float16 weights. Sizes: n vectors, m rows, k columns. Layout: see floats.py."""

from __future__ import annotations

from kernels import floats, tile_steps
from kernels.matvec_f16 import WEIGHTS, lookup
from kernels.matvec_f16 import multiply as single
from kernels.products import matmul

prepare, activation_bytes, lookup = WEIGHTS.prepare, WEIGHTS.activation_bytes, lookup
multiply = floats.matrix_product(tile_steps.f16_products, 2, single)

SPEC = matmul("matmul_f16", WEIGHTS, multiply)
