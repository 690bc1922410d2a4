"""Y = X W^T in float32. Sizes: n vectors, m rows, k columns. Layout: see floats.py."""

from __future__ import annotations

from kernels import floats, tile_steps
from kernels.matvec_f32 import WEIGHTS, lookup
from kernels.matvec_f32 import multiply as single
from kernels.products import matmul

prepare, activation_bytes, lookup = WEIGHTS.prepare, WEIGHTS.activation_bytes, lookup
multiply = floats.matrix_product(tile_steps.f32_products, 4, single)

SPEC = matmul("matmul_f32", WEIGHTS, multiply)
