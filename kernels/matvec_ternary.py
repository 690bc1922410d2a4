"""y = W x with weights -1, 0 or 1 times a scale for 32 columns, and x rounded to int8 in those.

    y[r] = sum_g scale[r,g] * s[g] * sum_{k in g} (q[r,k] - 1) * round(x[k] / s[g])

Sizes: m rows, k columns. One record for sixteen rows and one group; the surplus sum(x) is taken
off through the accumulator's first value. Rows and columns past the end are zero.

    record (block, group), 160 B
    | 16 scales float16 | row 0: k0..k3 | row 1 | ... row 15 | row 0: k16..k19 | ...
      32 B                bits 0-1; k4..k7 in bits 2-3, k8..k11 in 4-5, k12..k15 in 6-7; 64 B
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import grouped, rounding, simd
from kernels.products import Weights, matvec
from kernels.rounding import GROUP, GROUP_BYTES, SCALE, SUM
from kernels.rounding import by_groups as prepare
from kernels.rounding import groups_bytes as activation_bytes
from kernels.simd import EXACT, LANES, OPTIONS
from kernels.spec import Array

RECORD = 160
SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)


def layout(quantised: Array, scale: Array) -> Array:
    """quantised (m,k) uint8 in 0..2, scale (m, ceil(k/32)) float16 -> the stream, uint8."""
    q = grouped.padded(quantised, 1)
    blocks, groups = q.shape[0] // LANES, q.shape[1] // GROUP
    fours = q.reshape(blocks, LANES, groups, 2, 4, 4)  # block, row, group, sixteen, four, k
    bytes_ = np.bitwise_or.reduce(fours << SHIFTS[:, None], axis=4)
    payload = bytes_.transpose(0, 2, 3, 1, 4).reshape(blocks, groups, 128)
    return grouped.stream(payload, scale)


def layout_bytes(m: int, k: int) -> int:
    return grouped.stream_bytes(m, k, RECORD)


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
    zero = simd.splat_i32(np.int32(0))
    for block in range(first, last):
        p, found = start + block * groups * RECORD, simd.splat_f32(np.float32(0.0))
        for g in range(groups):
            x = at + g * GROUP_BYTES
            a, b = simd.splat_i32(-simd.peek_i32(activations, x + SUM)), zero
            for i in range(2):
                w, j = simd.load_bytes(weights, p + 32 + 64 * i), x + 16 * i
                a = simd.dot4_nibbles(a, simd.crumbs(w, 0), simd.quad(activations, j, 0))
                b = simd.dot4_nibbles(b, simd.crumbs(w, 1), simd.quad(activations, j, 1))
                a = simd.dot4_nibbles(a, simd.crumbs(w, 2), simd.quad(activations, j, 2))
                b = simd.dot4_nibbles(b, simd.crumbs(w, 3), simd.quad(activations, j, 3))
            scale = simd.multiply(
                simd.load_f16(weights, p), simd.splat_f32(simd.peek_f32(activations, x + SCALE))
            )
            found = simd.fma(simd.to_f32(simd.add_i32(a, b)), scale, found)
            p += RECORD
        simd.finish(found, out, to + block * LANES, m - block * LANES, accumulate)


@njit(**OPTIONS)
def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
    """Write row `row` of W to out[to:to+k]: an embedding."""
    groups = (k + 31) // 32
    r = row % LANES
    for i in range(k):
        p = start + (row // LANES * groups + i // GROUP) * RECORD
        scale = simd.lane(simd.load_f16(weights, p), r)
        byte = weights[p + 32 + i % GROUP // 16 * 64 + r * 4 + i % 4]
        q = np.int32(byte >> np.uint8(i % 16 // 4 * 2)) & np.int32(3)
        out[to + i] = np.float32(q - np.int32(1)) * scale


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32."""
    records = grouped.records(stream, k, RECORD)
    groups = records.shape[1]
    bytes_ = records[..., grouped.HEAD :].reshape(-1, groups, 2, LANES, 1, 4)
    q = (bytes_ >> SHIFTS[:, None] & 3).astype(np.float32) - 1.0  # (block,g,2,row,4,4)
    values = q.transpose(0, 3, 1, 2, 4, 5).reshape(-1, LANES, groups, GROUP)
    return grouped.weights(values, records, m, k)


def draw(m: int, k: int, rng: np.random.Generator) -> Array:
    quantised = rng.integers(0, 3, (m, k)).astype(np.uint8)
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
    source="ternary weights, Li & Liu 2016, with a scale for a group as in the Q types of ggml",
)
SPEC = matvec("matvec_ternary", WEIGHTS)
