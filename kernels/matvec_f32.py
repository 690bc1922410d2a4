"""y = W x in float32. Sizes: m rows, k columns. Layout: see floats.py."""

from __future__ import annotations

import numpy as np

from kernels import floats, simd
from kernels.floats import activation_bytes, prepare
from kernels.products import Weights, matvec
from kernels.spec import Array


def layout(weights: Array) -> Array:
    """weights (m,k) -> the stream (layout_bytes(m,k),) uint8."""
    return floats.layout(weights.astype(np.float32))


def unpack(stream: Array, m: int, k: int) -> Array:
    return floats.rows_of(stream, np.float32, m, k)


def layout_bytes(m: int, k: int) -> int:
    return floats.layout_bytes(m, k, 4)


multiply = floats.vector_product(simd.load_f32, 4)
lookup = floats.lookup_of(simd.load_f32, 4)

WEIGHTS = Weights(
    draw=lambda m, k, rng: layout(rng.standard_normal((m, k))),
    unpack=unpack,
    layout_bytes=layout_bytes,
    activation_bytes=activation_bytes,
    prepare=prepare,
    multiply=multiply,
    rounded=floats.rounded,
    source="definition",
)
SPEC = matvec("matvec_f32", WEIGHTS)
