"""y = W x with bfloat16 weights; x and sums are float32. Sizes: m rows, k columns.

Layout: see floats.py.
"""

from __future__ import annotations

import numpy as np

from kernels import floats, simd
from kernels.floats import activation_bytes, prepare
from kernels.products import Weights, matvec
from kernels.spec import Array


def layout(weights: Array) -> Array:
    """weights (m,k) bfloat16 as uint16 -> the stream (layout_bytes(m,k),) uint8."""
    return floats.layout(weights)


def narrow(weights: Array) -> Array:
    """float32 -> bfloat16 as uint16, to nearest, ties to even."""
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen(values: Array) -> Array:
    """bfloat16 as uint16 -> float32, exactly."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def unpack(stream: Array, m: int, k: int) -> Array:
    return widen(np.ascontiguousarray(floats.rows_of(stream, np.uint16, m, k)))


def layout_bytes(m: int, k: int) -> int:
    return floats.layout_bytes(m, k, 2)


multiply = floats.vector_product(simd.load_bf16, 2)
lookup = floats.lookup_of(simd.load_bf16, 2)

WEIGHTS = Weights(
    draw=lambda m, k, rng: layout(narrow(rng.standard_normal((m, k)))),
    unpack=unpack,
    layout_bytes=layout_bytes,
    activation_bytes=activation_bytes,
    prepare=prepare,
    multiply=multiply,
    rounded=floats.rounded,
    source="the upper half of float32, rounded to nearest even; Kalamkar et al. 2019",
)
SPEC = matvec("matvec_bf16", WEIGHTS)
