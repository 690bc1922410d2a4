"""y = W x with float16 weights; x and sums are float32. Sizes: m rows, k columns.

Layout: see floats.py.
"""

from __future__ import annotations

import numpy as np

from kernels import floats, simd
from kernels.floats import activation_bytes, prepare
from kernels.products import Weights, matvec
from kernels.spec import Array


def layout(weights: Array) -> Array:
    """weights (m,k) -> the stream (layout_bytes(m,k),) uint8."""
    return floats.layout(weights.astype(np.float16))


def unpack(stream: Array, m: int, k: int) -> Array:
    return floats.rows_of(stream, np.float16, m, k).astype(np.float32)


def layout_bytes(m: int, k: int) -> int:
    return floats.layout_bytes(m, k, 2)


multiply = floats.vector_product(simd.load_f16, 2)
lookup = floats.lookup_of(simd.load_f16, 2)

WEIGHTS = Weights(
    draw=lambda m, k, rng: layout(rng.standard_normal((m, k))),
    unpack=unpack,
    layout_bytes=layout_bytes,
    activation_bytes=activation_bytes,
    prepare=prepare,
    multiply=multiply,
    rounded=floats.rounded,
    source="IEEE 754 binary16",
)
SPEC = matvec("matvec_f16", WEIGHTS)
