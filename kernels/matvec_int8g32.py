"""y = W x with int8 weights in groups of 32 columns, and x rounded to int8 in the same groups.

    y[r] = sum_g scale[r,g] * s[g] * sum_{k in g} q[r,k] * round(x[k] / s[g])

Sizes: m rows, k columns. One record for sixteen rows and one group, with weights stored unsigned,
q + 128; the surplus 128 * sum(x) is taken off through the accumulator's first value. Rows and
columns past the end are zero.

    record (block, group), 544 B
    | 16 scales float16 | row 0: k0 k1 k2 k3 | row 1: k0..k3 | ... row 15 | row 0: k4..k7 | ...
      32 B                64 B a quad of columns, 512 B for the group
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

RECORD = 544


def layout(quantised: Array, scale: Array) -> Array:
    """quantised (m,k) int8, scale (m, ceil(k/32)) float16 -> the stream, uint8."""
    q = grouped.padded((quantised.astype(np.int16) + 128).astype(np.uint8), 128)
    blocks, groups = q.shape[0] // LANES, q.shape[1] // GROUP
    payload = q.reshape(blocks, LANES, groups, 8, 4).transpose(0, 2, 3, 1, 4)
    return grouped.stream(payload.reshape(blocks, groups, 512), scale)


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
    p = start + first * groups * RECORD
    for block in range(first, last):
        total = simd.splat_f32(np.float32(0.0))
        for g in range(groups):
            x = at + g * GROUP_BYTES
            total_x = simd.peek_i32(activations, x + SUM)
            a, b = simd.biased_start(total_x * np.int32(-128)), zero
            for i in range(2):
                q, j = p + 32 + 256 * i, x + 16 * i
                w0, w1 = simd.load_bytes(weights, q), simd.load_bytes(weights, q + 64)
                w2, w3 = simd.load_bytes(weights, q + 128), simd.load_bytes(weights, q + 192)
                a = simd.dot4_biased(a, w0, simd.quad(activations, j, 0))
                b = simd.dot4_biased(b, w1, simd.quad(activations, j, 1))
                a = simd.dot4_biased(a, w2, simd.quad(activations, j, 2))
                b = simd.dot4_biased(b, w3, simd.quad(activations, j, 3))
            scale = simd.multiply(
                simd.load_f16(weights, p), simd.splat_f32(simd.peek_f32(activations, x + SCALE))
            )
            total = simd.fma(simd.to_f32(simd.add_i32(a, b)), scale, total)
            p += RECORD
        simd.finish(total, out, to + block * LANES, m - block * LANES, accumulate)


@njit(**OPTIONS)
def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
    """Write row `row` of W to out[to:to+k]: an embedding."""
    groups = (k + 31) // 32
    r = row % LANES
    for i in range(k):
        p = start + (row // LANES * groups + i // GROUP) * RECORD
        scale = simd.lane(simd.load_f16(weights, p), r)
        q = weights[p + 32 + i % GROUP // 4 * 64 + r * 4 + i % 4]
        out[to + i] = np.float32(np.int32(q) - np.int32(128)) * scale


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32."""
    records = grouped.records(stream, k, RECORD)
    groups = records.shape[1]
    levels = records[..., grouped.HEAD :].reshape(-1, groups, 8, LANES, 4)
    q = levels.astype(np.float32) - 128.0
    values = q.transpose(0, 3, 1, 2, 4).reshape(-1, LANES, groups, GROUP)
    return grouped.weights(values, records, m, k)


def draw(m: int, k: int, rng: np.random.Generator) -> Array:
    quantised = rng.integers(-127, 128, (m, k)).astype(np.int8)
    scale = rng.uniform(0.001, 0.01, (m, -(-k // GROUP))).astype(np.float16)
    return layout(quantised, scale)


WEIGHTS = Weights(
    draw=draw,
    unpack=unpack,
    layout_bytes=layout_bytes,
    activation_bytes=activation_bytes,
    prepare=prepare,
    multiply=multiply,
    rounded=rounding.rounded_groups,
    source="symmetric rounding in groups of 32, as the Q8_0 type of llama.cpp",
)
SPEC = matvec("matvec_int8g32", WEIGHTS)
