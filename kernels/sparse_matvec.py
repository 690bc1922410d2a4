"""Y = X W^T where only the weights that are not zero are stored, in float32. Layout: see sparse.py.

head of a block: | mask of columns 0..3 | mask of columns 4..7 | ...   bit 16*j + r: row r
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from kernels import floats, simd
from kernels.floats import activation_bytes, prepare
from kernels.simd import LANES, OPTIONS
from kernels.sparse import (
    MASK,
    QUAD,
    SPARE,
    Storage,
    assemble,
    by_column,
    masks_of,
    places,
    product,
    scattered,
    stored_of,
    table_bytes,
)
from kernels.spec import Array


def layout_values(stored: Array, values: Array) -> Array:
    """stored (m,k) bool, values (m,k) of 2 or 4 bytes each -> the stream, uint8."""
    where, lanes = by_column(stored), by_column(values)
    masks = masks_of(where)
    sizes = where.sum((1, 2)) * values.itemsize
    packed = lanes[where].view(np.uint8)
    return assemble(masks.reshape(masks.shape[0], -1), sizes, packed, packed.size)


def values_of(stream: Array, dtype: type[np.generic], m: int, k: int) -> Array:
    """The stream back as (m,k) values of `dtype`, zeros filled in."""
    blocks, quads, start = -(-m // LANES), -(-k // QUAD), table_bytes(m)
    heads = stream[start : start + blocks * quads * MASK].reshape(blocks, quads, MASK)
    stored = stored_of(heads)
    rest = stream[start + heads.size :]
    lanes = np.zeros(stored.shape, dtype)
    size = int(stored.sum()) * np.dtype(dtype).itemsize
    lanes[stored] = np.ascontiguousarray(rest[:size]).view(dtype)
    rows = lanes.reshape(blocks, quads, QUAD, LANES).transpose(0, 3, 1, 2)
    return rows.reshape(blocks * LANES, -1)[:m, :k]


def stream_bytes(m: int, k: int, z: int, size: int) -> int:
    heads = -(-m // LANES) * -(-k // QUAD) * MASK
    return int(table_bytes(m)) + heads + z * size + SPARE


def float_product(expand: Any, size: int) -> Callable[..., None]:
    """`multiply` with n vectors, for values of `size` bytes that `expand` spreads and widens."""

    @njit(**OPTIONS)
    def multiply(
        weights: Array,
        start: int,
        activations: Array,
        at: int,
        stride: int,
        n: int,
        k: int,
        m: int,
        first: int,
        last: int,
        out: Array,
        to: int,
        pitch: int,
        accumulate: bool,
    ) -> None:
        """Row blocks first..last of W for n vectors; the same call as matmul_f32.multiply."""
        head = (k + QUAD - 1) // QUAD * MASK
        for block in range(first, last):
            masks, values = places(weights, start, m, head, block)
            rows, y = m - block * LANES, to + block * LANES
            for t in range(0, n // 4 * 4, 4):
                x, z = at + t * stride, y + t * pitch
                a, b, c, d = _four(weights, masks, values, activations, x, stride, k)
                simd.finish(a, out, z, rows, accumulate)
                simd.finish(b, out, z + pitch, rows, accumulate)
                simd.finish(c, out, z + 2 * pitch, rows, accumulate)
                simd.finish(d, out, z + 3 * pitch, rows, accumulate)
            for t in range(n // 4 * 4, n):
                total = _one(weights, masks, values, activations, at + t * stride, k)
                simd.finish(total, out, y + t * pitch, rows, accumulate)

    @njit(**OPTIONS)
    def _one(
        weights: Array, masks: int, values: int, activations: Array, x: int, k: int
    ) -> simd.Vector:
        a0 = a1 = a2 = a3 = simd.splat_f32(np.float32(0.0))
        p = values
        whole = k // QUAD * QUAD
        for i in range(0, whole, QUAD):
            mask, q = simd.peek_i64(weights, masks + 2 * i), x + 4 * i
            p0 = p + size * simd.count_ones(mask & 0xFFFF)
            p1 = p + size * simd.count_ones(mask & 0xFFFFFFFF)
            p2 = p + size * simd.count_ones(mask & 0xFFFFFFFFFFFF)
            a0 = simd.fma(expand(weights, p, mask), _x(activations, q), a0)
            a1 = simd.fma(expand(weights, p0, mask >> 16), _x(activations, q + 4), a1)
            a2 = simd.fma(expand(weights, p1, mask >> 32), _x(activations, q + 8), a2)
            a3 = simd.fma(expand(weights, p2, mask >> 48), _x(activations, q + 12), a3)
            p += size * simd.count_ones(mask)
        if whole < k:  # an x past the end is not ours to read
            mask = simd.peek_i64(weights, masks + 2 * whole)
            for i in range(whole, k):
                a0 = simd.fma(expand(weights, p, mask), _x(activations, x + 4 * i), a0)
                p += size * simd.count_ones(mask & 0xFFFF)
                mask >>= 16
        return simd.add(simd.add(a0, a1), simd.add(a2, a3))

    @njit(**OPTIONS)
    def _four(
        weights: Array, masks: int, values: int, activations: Array, x: int, stride: int, k: int
    ) -> tuple[simd.Vector, simd.Vector, simd.Vector, simd.Vector]:
        a = b = c = d = simd.splat_f32(np.float32(0.0))
        p = values
        for i in range(k):
            mask = simd.peek_i64(weights, masks + 2 * (i // QUAD * QUAD)) >> 16 * (i % QUAD)
            w, q = expand(weights, p, mask), x + 4 * i
            a = simd.fma(w, _x(activations, q), a)
            b = simd.fma(w, _x(activations, q + stride), b)
            c = simd.fma(w, _x(activations, q + 2 * stride), c)
            d = simd.fma(w, _x(activations, q + 3 * stride), d)
            p += size * simd.count_ones(mask & 0xFFFF)
        return a, b, c, d

    return multiply


@njit(**OPTIONS)
def _x(activations: Array, at: int) -> simd.Vector:
    return simd.splat_f32(simd.peek_f32(activations, at))


def float_lookup(expand: Any, size: int) -> Callable[..., None]:
    """`lookup`, for values of `size` bytes that `expand` spreads and widens."""

    @njit(**OPTIONS)
    def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
        """Write row `row` of W to out[to:to+k]: an embedding."""
        head = (k + QUAD - 1) // QUAD * MASK
        masks, p = places(weights, start, m, head, row // LANES)
        for i in range(k):
            mask = simd.peek_i64(weights, masks + 2 * (i // QUAD * QUAD)) >> 16 * (i % QUAD)
            out[to + i] = simd.lane(expand(weights, p, mask), row % LANES)
            p += size * simd.count_ones(mask & 0xFFFF)

    return lookup


def layout(stored: Array, values: Array) -> Array:
    """stored (m,k) bool, values (m,k) -> the stream, uint8."""
    return layout_values(stored, values.astype(np.float32))


def layout_bytes(m: int, k: int, z: int) -> int:
    return stream_bytes(m, k, z, 4)


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32, zeros filled in."""
    return values_of(stream, np.float32, m, k)


def draw(m: int, k: int, z: int, rng: np.random.Generator) -> Array:
    return layout(scattered(m, k, z, rng), rng.standard_normal((m, k)))


multiply = float_product(simd.expand_f32, 4)
lookup = float_lookup(simd.expand_f32, 4)

SPEC = product(
    "sparse_matvec",
    Storage(
        draw=draw,
        unpack=unpack,
        layout_bytes=layout_bytes,
        activation_bytes=activation_bytes,
        prepare=prepare,
        multiply=multiply,
        rounded=floats.rounded,
        source="bitmap storage of sparse blocks; sixteen rows abreast is ours",
    ),
)
