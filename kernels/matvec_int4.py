"""y = W x with int4 weights in groups of 32 columns, and x rounded to int8 in the same groups.

    y[r] = sum_g scale[r,g] * s[g] * sum_{k in g} (q[r,k] - 8) * round(x[k] / s[g])

Sizes: m rows, k columns. One record for sixteen rows and one group; the surplus 8 * sum(x) is
taken off through the accumulator's first value. Rows and columns past the end are zero.

    record (block, group), 288 B
    | 16 scales float16 | row 0: k0..k3 low, k4..k7 high | row 1 | ... row 15 | row 0: k8.. | ...
      32 B                4 B a row, 64 B for eight columns, 256 B for the group
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from kernels import grouped, rounding, simd
from kernels.products import Weights, matvec
from kernels.rounding import GROUP, GROUP_BYTES, SCALE, SUM
from kernels.rounding import by_groups as prepare
from kernels.rounding import groups_bytes as activation_bytes
from kernels.simd import EXACT, LANES, OPTIONS
from kernels.spec import Array

RECORD = 288
# Weights that no cache holds, such as a large model's, come some per cent sooner when they are
# asked for a page ahead; those that a cache holds would come later.
FAR, AHEAD = 48 * 2**20, 4096


def layout(quantised: Array, scale: Array) -> Array:
    """quantised (m,k) uint8 in 0..15, scale (m, ceil(k/32)) float16 -> the stream, uint8."""
    q = grouped.padded(quantised, 8)
    blocks, groups = q.shape[0] // LANES, q.shape[1] // GROUP
    eights = q.reshape(blocks, LANES, groups, 4, 2, 4)  # block, row, group, eight, half, k
    nibbles = eights[..., 0, :] | (eights[..., 1, :] << 4)
    payload = nibbles.transpose(0, 2, 3, 1, 4).reshape(blocks, groups, 256)
    return grouped.stream(payload, scale)


def layout_bytes(m: int, k: int) -> int:
    return grouped.stream_bytes(m, k, RECORD)


def _summer(far: bool) -> Callable[..., simd.Vector]:
    """A row block times a vector; from far away, lines are asked for a page ahead."""

    @njit(**EXACT)
    def total(weights: Array, p: int, activations: Array, at: int, groups: int) -> simd.Vector:
        found, zero = simd.splat_f32(np.float32(0.0)), simd.splat_i32(np.int32(0))
        for g in range(groups):
            x = at + g * GROUP_BYTES
            surplus = simd.peek_i32(activations, x + SUM) * np.int32(-8)
            a, b = simd.splat_i32(surplus), zero
            for i in range(2):
                w = simd.load_bytes(weights, p + 32 + 128 * i)
                v = simd.load_bytes(weights, p + 96 + 128 * i)
                j = x + 16 * i
                a = simd.dot4_nibbles(a, simd.low_nibbles(w), simd.quad(activations, j, 0))
                b = simd.dot4_nibbles(b, simd.high_nibbles(w), simd.quad(activations, j, 1))
                a = simd.dot4_nibbles(a, simd.low_nibbles(v), simd.quad(activations, j, 2))
                b = simd.dot4_nibbles(b, simd.high_nibbles(v), simd.quad(activations, j, 3))
            scale = simd.multiply(
                simd.load_f16(weights, p), simd.splat_f32(simd.peek_f32(activations, x + SCALE))
            )
            found = simd.fma(simd.to_f32(simd.add_i32(a, b)), scale, found)
            if far:
                for line in range(0, RECORD, 64):
                    simd.prefetch(weights, p + AHEAD + line)
            p += RECORD
        return found

    compiled: Callable[..., simd.Vector] = total
    return compiled


_near, _far = _summer(far=False), _summer(far=True)


@njit(**EXACT)
def multiply(
    weights: Array,
    start: int,
    activations: Array,
    at: int,
    k: int,
    m: int,
    first: int,
    last: int,
    out: Array,
    to: int,
    accumulate: bool,
) -> None:
    """Row blocks first..last of W x, written or added to out[to:to+m]. W starts at byte `start`."""
    groups = (k + 31) // 32
    for block in range(first, last):
        p = start + block * groups * RECORD
        if weights.size > FAR:
            total = _far(weights, p, activations, at, groups)
        else:
            total = _near(weights, p, activations, at, groups)
        simd.finish(total, out, to + block * LANES, m - block * LANES, accumulate)


@njit(**OPTIONS)
def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
    """Write row `row` of W to out[to:to+k]: an embedding."""
    groups = (k + 31) // 32
    r = row % LANES
    for i in range(k):
        p = start + (row // LANES * groups + i // GROUP) * RECORD
        scale = simd.lane(simd.load_f16(weights, p), r)
        byte = weights[p + 32 + i % GROUP // 8 * 64 + r * 4 + i % 4]
        q = np.int32(byte >> np.uint8(4)) if i % 8 >= 4 else np.int32(byte & np.uint8(15))
        out[to + i] = np.float32(q - np.int32(8)) * scale


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32."""
    records = grouped.records(stream, k, RECORD)
    groups = records.shape[1]
    nibbles = records[..., grouped.HEAD :].reshape(-1, groups, 4, LANES, 4)
    q = np.stack([nibbles & 15, nibbles >> 4], -2).astype(np.float32) - 8.0  # (b,g,4,row,2,4)
    values = q.transpose(0, 3, 1, 2, 4, 5).reshape(-1, LANES, groups, GROUP)
    return grouped.weights(values, records, m, k)


def draw(m: int, k: int, rng: np.random.Generator) -> Array:
    quantised = rng.integers(0, 16, (m, k)).astype(np.uint8)
    scale = rng.uniform(0.01, 0.1, (m, -(-k // GROUP))).astype(np.float16)
    return layout(quantised, scale)


WEIGHTS = Weights(
    draw=draw,
    unpack=unpack,
    layout_bytes=layout_bytes,
    activation_bytes=activation_bytes,
    prepare=prepare,
    multiply=multiply,
    rounded=rounding.rounded_groups,
    source="symmetric rounding in groups of 32, as the Q4_0 type of llama.cpp",
)
SPEC = matvec("matvec_int4", WEIGHTS)
