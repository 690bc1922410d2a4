"""Y = X W^T where only weights that are not zero are stored, as int8 with one scale a row.

Layout: see sparse.py. Values are stored plus 128, and a lane without one is filled with 128, so
that the dot products are those of matvec_int8.

    head of a block: | 16 scales float32 | mask of columns 0..3 | 4..7 | ...   bit 4*r + j: row r
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import rounding, simd
from kernels.rounding import HEADER
from kernels.rounding import by_row as prepare
from kernels.rounding import row_bytes as activation_bytes
from kernels.simd import EXACT, LANES, OPTIONS
from kernels.sparse import (
    MASK,
    QUAD,
    SPARE,
    Storage,
    assemble,
    by_row,
    masks_of,
    places,
    product,
    scattered,
    stored_of,
    table_bytes,
)
from kernels.spec import Array

WIDE = 32  # columns are padded to a multiple, as the vectors are
SCALES = 64


def layout(stored: Array, levels: Array, scale: Array) -> Array:
    """stored (m,k) bool, levels (m,k) int8, scale (m,) float32 -> the stream, uint8."""
    where, lanes = by_row(stored, WIDE), by_row(levels, WIDE)
    blocks = where.shape[0]
    scales = np.zeros(blocks * LANES, np.float32)
    scales[: scale.size] = scale
    masks = masks_of(where).reshape(blocks, -1)
    packed = (lanes[where].astype(np.int16) + 128).astype(np.uint8)
    heads = np.concatenate([scales.view(np.uint8).reshape(blocks, SCALES), masks], 1)
    return assemble(heads, where.sum((1, 2)), packed, packed.size)


def layout_bytes(m: int, k: int, z: int) -> int:
    return int(table_bytes(m)) + -(-m // LANES) * head_bytes(k) + z + SPARE


@njit(**OPTIONS)
def head_bytes(k: int) -> int:
    return SCALES + (k + WIDE - 1) // WIDE * WIDE // QUAD * MASK


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32, zeros filled in."""
    blocks, start, head = -(-m // LANES), table_bytes(m), head_bytes(k)
    heads = stream[start : start + blocks * head].reshape(blocks, head)
    scales = np.ascontiguousarray(heads[:, :SCALES]).view(np.float32).reshape(-1)
    stored = stored_of(heads[:, SCALES:].reshape(blocks, -1, MASK))
    lanes = np.zeros(stored.shape, np.float32)
    rest = stream[start + heads.size :]
    lanes[stored] = rest[: int(stored.sum())].astype(np.float32) - 128.0
    rows = lanes.reshape(blocks, -1, LANES, QUAD).transpose(0, 2, 1, 3).reshape(blocks * LANES, -1)
    weights: Array = (rows * scales[:, None])[:m, :k].astype(np.float32)
    return weights


@njit(**EXACT)
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
    """Row blocks first..last of W for n prepared vectors; the same call as matmul_int8.multiply."""
    wide = (k + WIDE - 1) // WIDE * WIDE
    for block in range(first, last):
        head, values = places(weights, start, m, head_bytes(k), block)
        masks, scale = head + SCALES, simd.load_f32(weights, head)
        rows, y = m - block * LANES, to + block * LANES
        for t in range(0, n // 4 * 4, 4):
            x, z = at + t * stride, y + t * pitch
            a, b, c, d = _four(weights, masks, values, activations, x, stride, wide)
            _put(a, scale, activations, x, out, z, rows, accumulate)
            _put(b, scale, activations, x + stride, out, z + pitch, rows, accumulate)
            _put(c, scale, activations, x + 2 * stride, out, z + 2 * pitch, rows, accumulate)
            _put(d, scale, activations, x + 3 * stride, out, z + 3 * pitch, rows, accumulate)
        for t in range(n // 4 * 4, n):
            x = at + t * stride
            total = _one(weights, masks, values, activations, x, wide)
            _put(total, scale, activations, x, out, y + t * pitch, rows, accumulate)


@njit(**EXACT)
def _one(
    weights: Array, masks: int, values: int, activations: Array, x: int, wide: int
) -> simd.Vector:
    zero = simd.splat_i32(np.int32(0))
    a0, a1, a2, a3 = _start(activations, x), zero, zero, zero
    p0 = values
    for i in range(0, wide, 4 * QUAD):
        q, j = masks + i * MASK // QUAD, x + HEADER + i
        m0, m1 = simd.peek_i64(weights, q), simd.peek_i64(weights, q + MASK)
        m2, m3 = simd.peek_i64(weights, q + 2 * MASK), simd.peek_i64(weights, q + 3 * MASK)
        p1 = p0 + simd.count_ones(m0)
        p2 = p1 + simd.count_ones(m1)
        p3 = p2 + simd.count_ones(m2)
        a0 = simd.dot4_biased(a0, simd.expand_biased(weights, p0, m0), simd.quad(activations, j, 0))
        a1 = simd.dot4_biased(a1, simd.expand_biased(weights, p1, m1), simd.quad(activations, j, 1))
        a2 = simd.dot4_biased(a2, simd.expand_biased(weights, p2, m2), simd.quad(activations, j, 2))
        a3 = simd.dot4_biased(a3, simd.expand_biased(weights, p3, m3), simd.quad(activations, j, 3))
        p0 = p3 + simd.count_ones(m3)
    return simd.add_i32(simd.add_i32(a0, a1), simd.add_i32(a2, a3))


@njit(**EXACT)
def _four(
    weights: Array, masks: int, values: int, activations: Array, x: int, stride: int, wide: int
) -> tuple[simd.Vector, simd.Vector, simd.Vector, simd.Vector]:
    a, b = _start(activations, x), _start(activations, x + stride)
    c, d = _start(activations, x + 2 * stride), _start(activations, x + 3 * stride)
    p = values
    for i in range(0, wide, QUAD):
        mask, j = simd.peek_i64(weights, masks + i * MASK // QUAD), x + HEADER + i
        w = simd.expand_biased(weights, p, mask)
        a = simd.dot4_biased(a, w, simd.repeat4(activations, j))
        b = simd.dot4_biased(b, w, simd.repeat4(activations, j + stride))
        c = simd.dot4_biased(c, w, simd.repeat4(activations, j + 2 * stride))
        d = simd.dot4_biased(d, w, simd.repeat4(activations, j + 3 * stride))
        p += simd.count_ones(mask)
    return a, b, c, d


@njit(**EXACT)
def _start(activations: Array, x: int) -> simd.Vector:
    return simd.biased_start(simd.peek_i32(activations, x + 4) * np.int32(-128))


@njit(**EXACT)
def _put(
    total: simd.Vector,
    scale: simd.Vector,
    activations: Array,
    x: int,
    out: Array,
    to: int,
    rows: int,
    accumulate: bool,
) -> None:
    step = simd.splat_f32(simd.peek_f32(activations, x))
    scaled = simd.multiply(simd.to_f32(total), simd.multiply(scale, step))
    simd.finish(scaled, out, to, rows, accumulate)


@njit(**OPTIONS)
def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
    """Write row `row` of W to out[to:to+k]: an embedding."""
    head, p = places(weights, start, m, head_bytes(k), row // LANES)
    lane = row % LANES
    scale = simd.peek_f32(weights, head + 4 * lane)
    for i in range(0, k, QUAD):
        mask = simd.peek_i64(weights, head + SCALES + i * MASK // QUAD)
        for j in range(min(QUAD, k - i)):
            bit = QUAD * lane + j
            before = p + simd.count_ones(mask & ((1 << bit) - 1))
            level = np.int32(weights[before]) - np.int32(128)
            out[to + i + j] = np.float32(level if mask >> bit & 1 else 0) * scale
        p += simd.count_ones(mask)


def draw(m: int, k: int, z: int, rng: np.random.Generator) -> Array:
    levels = rng.integers(-127, 128, (m, k)).astype(np.int8)
    return layout(scattered(m, k, z, rng), levels, rng.uniform(1e-3, 1e-2, m).astype(np.float32))


SPEC = product(
    "sparse_matvec_int8",
    Storage(
        draw=draw,
        unpack=unpack,
        layout_bytes=layout_bytes,
        activation_bytes=activation_bytes,
        prepare=prepare,
        multiply=multiply,
        rounded=rounding.rounded_row,
        source="as sparse_matvec and matvec_int8",
    ),
)
