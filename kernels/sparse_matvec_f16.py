"""Y = X W^T where only the weights that are not zero are stored, in float16.

Layout: see sparse.py and sparse_matvec.py.
"""

from __future__ import annotations

import numpy as np

from kernels import floats, simd
from kernels.floats import activation_bytes, prepare
from kernels.sparse import Storage, product, scattered
from kernels.sparse_matvec import (
    float_lookup,
    float_product,
    layout_values,
    stream_bytes,
    values_of,
)
from kernels.spec import Array


def layout(stored: Array, values: Array) -> Array:
    """stored (m,k) bool, values (m,k) -> the stream, uint8."""
    return layout_values(stored, values.astype(np.float16))


def layout_bytes(m: int, k: int, z: int) -> int:
    return stream_bytes(m, k, z, 2)


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32, zeros filled in."""
    return values_of(stream, np.float16, m, k).astype(np.float32)


def draw(m: int, k: int, z: int, rng: np.random.Generator) -> Array:
    return layout(scattered(m, k, z, rng), rng.standard_normal((m, k)))


multiply = float_product(simd.expand_f16, 2)
lookup = float_lookup(simd.expand_f16, 2)

SPEC = product(
    "sparse_matvec_f16",
    Storage(
        draw=draw,
        unpack=unpack,
        layout_bytes=layout_bytes,
        activation_bytes=activation_bytes,
        prepare=prepare,
        multiply=multiply,
        rounded=floats.rounded,
        source="as sparse_matvec",
    ),
)
