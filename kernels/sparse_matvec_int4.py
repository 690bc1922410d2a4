"""Y = X W^T where only weights that are not zero are stored, as int4 with a scale for 32 columns.

Layout: see sparse.py. Values are those of matvec_int4, 0..15 with zero at 8, two a byte, the first
one low; those of one mask begin on a byte. Columns are padded to a multiple of 32.

    head of a block: | group 0: 16 scales float16 | mask of columns 0..3 | ... 28..31 | group 1 ...
      96 B a group                 32 B             8 B                   bit 4*r + j: row r
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import rounding, simd
from kernels.rounding import GROUP, GROUP_BYTES, SCALE, SUM
from kernels.rounding import by_groups as prepare
from kernels.rounding import groups_bytes as activation_bytes
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

SCALES = 32
RECORD = SCALES + GROUP // QUAD * MASK


def layout(stored: Array, levels: Array, scale: Array) -> Array:
    """stored (m,k) bool, levels (m,k) uint8, scale (m, ceil(k/32)) float16 -> the stream, uint8.

    As long as the worst place of `stored.sum()` weights would make it.
    """
    (m, k), where, lanes = stored.shape, by_row(stored, GROUP), by_row(levels, GROUP)
    blocks, quads, _ = where.shape
    groups = quads * QUAD // GROUP
    scales = np.zeros((blocks * LANES, groups), np.float16)
    scales[:m] = scale
    heads = np.ascontiguousarray(scales.reshape(blocks, LANES, groups).transpose(0, 2, 1))
    masks = masks_of(where).reshape(blocks, groups, -1)
    records = np.concatenate([heads.view(np.uint8).reshape(blocks, groups, SCALES), masks], 2)
    counts = where.sum(2)
    first = np.concatenate([[0], np.cumsum(counts + counts % 2)])[:-1]  # of each mask, even
    owner = np.repeat(np.arange(counts.size), counts.reshape(-1))
    rank = np.arange(owner.size) - (np.cumsum(counts) - counts.reshape(-1))[owner]
    nibbles = np.zeros(int((counts + counts % 2).sum()), np.uint8)
    nibbles[first[owner] + rank] = lanes[where]
    packed = nibbles[::2] | (nibbles[1::2] << 4)
    sizes = ((counts + 1) // 2).sum(1)
    return assemble(records, sizes, packed, _room(m, k, int(stored.sum())))


def layout_bytes(m: int, k: int, z: int) -> int:
    groups = -(-k // GROUP)
    return int(table_bytes(m)) + -(-m // LANES) * groups * RECORD + _room(m, k, z) + SPARE


def _room(m: int, k: int, z: int) -> int:
    """Bytes that z values take at most: every mask may waste half a byte."""
    masks = -(-m // LANES) * -(-k // GROUP) * (GROUP // QUAD)
    return (z + min(z, masks) + 1) // 2


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32, zeros filled in."""
    blocks, groups, start = -(-m // LANES), -(-k // GROUP), table_bytes(m)
    heads = stream[start : start + blocks * groups * RECORD].reshape(blocks, groups, RECORD)
    scales = np.ascontiguousarray(heads[..., :SCALES]).view(np.float16).astype(np.float32)
    stored = stored_of(heads[..., SCALES:].reshape(-1, MASK))  # (masks, 64)
    packed = stream[start + heads.size :]
    nibbles = np.stack([packed & 15, packed >> 4], 1).reshape(-1)
    counts = stored.sum(1)
    first = np.concatenate([[0], np.cumsum(counts + counts % 2)])[:-1]
    rank = np.cumsum(stored, 1) - 1
    levels = nibbles[np.minimum(first[:, None] + rank, nibbles.size - 1)].astype(np.float32) - 8.0
    lanes = np.where(stored, levels, 0).reshape(blocks, groups, GROUP // QUAD, LANES, QUAD)
    rows = lanes.transpose(0, 3, 1, 2, 4).reshape(blocks, LANES, groups, GROUP)
    weights = rows * scales.transpose(0, 2, 1)[..., None]
    return weights.reshape(-1, groups * GROUP)[:m, :k].astype(np.float32)


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
    """Row blocks first..last of W for n prepared vectors; the same call as matmul_int4.multiply."""
    groups = (k + GROUP - 1) // GROUP
    for block in range(first, last):
        head, values = places(weights, start, m, groups * RECORD, block)
        rows, y = m - block * LANES, to + block * LANES
        for t in range(0, n // 2 * 2, 2):
            x, z = at + t * stride, y + t * pitch
            a, b = _two(weights, head, values, activations, x, x + stride, groups)
            simd.finish(a, out, z, rows, accumulate)
            simd.finish(b, out, z + pitch, rows, accumulate)
        if n % 2:
            t = n - 1
            total = _one(weights, head, values, activations, at + t * stride, groups)
            simd.finish(total, out, y + t * pitch, rows, accumulate)


@njit(**EXACT)
def _spread(weights: Array, p: int, mask: int) -> simd.Vector:
    return simd.expand_nibbles(simd.load_nibbles(weights, p), mask)


@njit(**EXACT)
def _one(
    weights: Array, head: int, values: int, activations: Array, at: int, groups: int
) -> simd.Vector:
    total, p0 = simd.splat_f32(np.float32(0.0)), values
    zero = simd.splat_i32(np.int32(0))
    for g in range(groups):
        x, record = at + g * GROUP_BYTES, head + g * RECORD
        a, b = simd.splat_i32(simd.peek_i32(activations, x + SUM) * np.int32(-8)), zero
        for i in range(2):
            q, j = record + SCALES + 4 * MASK * i, x + 16 * i
            m0, m1 = simd.peek_i64(weights, q), simd.peek_i64(weights, q + MASK)
            m2, m3 = simd.peek_i64(weights, q + 2 * MASK), simd.peek_i64(weights, q + 3 * MASK)
            p1 = p0 + ((simd.count_ones(m0) + 1) >> 1)
            p2 = p1 + ((simd.count_ones(m1) + 1) >> 1)
            p3 = p2 + ((simd.count_ones(m2) + 1) >> 1)
            a = simd.dot4_nibbles(a, _spread(weights, p0, m0), simd.quad(activations, j, 0))
            b = simd.dot4_nibbles(b, _spread(weights, p1, m1), simd.quad(activations, j, 1))
            a = simd.dot4_nibbles(a, _spread(weights, p2, m2), simd.quad(activations, j, 2))
            b = simd.dot4_nibbles(b, _spread(weights, p3, m3), simd.quad(activations, j, 3))
            p0 = p3 + ((simd.count_ones(m3) + 1) >> 1)
        total = simd.fma(
            simd.to_f32(simd.add_i32(a, b)), _scale(weights, record, activations, x), total
        )
    return total


@njit(**EXACT)
def _two(
    weights: Array, head: int, values: int, activations: Array, at: int, other: int, groups: int
) -> tuple[simd.Vector, simd.Vector]:
    first = second = simd.splat_f32(np.float32(0.0))
    p = values
    for g in range(groups):
        x, y, record = at + g * GROUP_BYTES, other + g * GROUP_BYTES, head + g * RECORD
        a = simd.splat_i32(simd.peek_i32(activations, x + SUM) * np.int32(-8))
        b = simd.splat_i32(simd.peek_i32(activations, y + SUM) * np.int32(-8))
        for i in range(GROUP // QUAD):
            mask = simd.peek_i64(weights, record + SCALES + MASK * i)
            w = _spread(weights, p, mask)
            a = simd.dot4_nibbles(a, w, simd.repeat4(activations, x + QUAD * i))
            b = simd.dot4_nibbles(b, w, simd.repeat4(activations, y + QUAD * i))
            p += (simd.count_ones(mask) + 1) >> 1
        first = simd.fma(simd.to_f32(a), _scale(weights, record, activations, x), first)
        second = simd.fma(simd.to_f32(b), _scale(weights, record, activations, y), second)
    return first, second


@njit(**EXACT)
def _scale(weights: Array, record: int, activations: Array, x: int) -> simd.Vector:
    step = simd.splat_f32(simd.peek_f32(activations, x + SCALE))
    return simd.multiply(simd.load_f16(weights, record), step)


@njit(**OPTIONS)
def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
    """Write row `row` of W to out[to:to+k]: an embedding."""
    groups, lane = (k + GROUP - 1) // GROUP, row % LANES
    head, p = places(weights, start, m, groups * RECORD, row // LANES)
    for i in range(0, k, QUAD):
        record = head + i // GROUP * RECORD
        scale = simd.lane(simd.load_f16(weights, record), lane)
        mask = simd.peek_i64(weights, record + SCALES + i % GROUP // QUAD * MASK)
        for j in range(min(QUAD, k - i)):
            bit = QUAD * lane + j
            before = simd.count_ones(mask & ((1 << bit) - 1))
            byte = np.int32(weights[p + before // 2])
            level = (byte >> np.int32(4) if before % 2 else byte & np.int32(15)) - np.int32(8)
            out[to + i + j] = np.float32(level if mask >> bit & 1 else 0) * scale
        p += (simd.count_ones(mask) + 1) >> 1


def draw(m: int, k: int, z: int, rng: np.random.Generator) -> Array:
    levels = rng.integers(0, 16, (m, k)).astype(np.uint8)
    scale = rng.uniform(0.01, 0.1, (m, -(-k // GROUP))).astype(np.float16)
    return layout(scattered(m, k, z, rng), levels, scale)


SPEC = product(
    "sparse_matvec_int4",
    Storage(
        draw=draw,
        unpack=unpack,
        layout_bytes=layout_bytes,
        activation_bytes=activation_bytes,
        prepare=prepare,
        multiply=multiply,
        rounded=rounding.rounded_groups,
        source="as sparse_matvec and matvec_int4",
    ),
)
