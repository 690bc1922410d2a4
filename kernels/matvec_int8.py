"""y = W x with int8 weights, one scale a row, and x rounded to int8 with one scale.

    y[r] = scale[r] * s * sum_k q[r,k] * round(x[k] / s),   s = max|x| / 127

Sizes: m rows, k columns. Weights are stored unsigned, q + 128, as the dot product of x86 wants;
there the surplus 128 * sum(x) is taken off through the accumulator's first value.

    block 0 (rows 0-15)
    | 16 scales float32 | row 0: k0 k1 k2 k3 | row 1: k0..k3 | ... row 15 | row 0: k4..k7 | ...
      64 B                64 B a quad of columns; columns padded to a multiple of 32
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import rounding, simd
from kernels.products import Weights, matvec
from kernels.rounding import HEADER
from kernels.rounding import by_row as prepare
from kernels.rounding import row_bytes as activation_bytes
from kernels.simd import EXACT, LANES, OPTIONS
from kernels.spec import Array


def layout(quantised: Array, scale: Array) -> Array:
    """quantised (m,k) int8, scale (m,) float32 -> the stream (layout_bytes(m,k),) uint8."""
    m, k = quantised.shape
    blocks, wide = -(-m // LANES), -(-k // 32) * 32
    q = np.full((blocks * LANES, wide), 128, np.uint8)
    q[:m, :k] = (quantised.astype(np.int16) + 128).astype(np.uint8)
    scales = np.zeros((blocks * LANES,), np.float32)
    scales[:m] = scale
    quads = q.reshape(blocks, LANES, wide // 4, 4).transpose(0, 2, 1, 3).reshape(blocks, -1)
    return np.concatenate([scales.view(np.uint8).reshape(blocks, 64), quads], 1).reshape(-1)


def layout_bytes(m: int, k: int) -> int:
    return -(-m // LANES) * (64 + LANES * (-(-k // 32) * 32))


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
    wide = (k + 31) // 32 * 32
    scale = simd.splat_f32(simd.peek_f32(activations, at))
    first_value = simd.biased_start(simd.peek_i32(activations, at + 4) * np.int32(-128))
    zero = simd.splat_i32(np.int32(0))
    x = at + HEADER
    for block in range(first, last):
        p = start + block * (64 + wide * LANES)
        w = p + 64
        a0, a1, a2, a3 = first_value, zero, zero, zero
        for i in range(0, wide, 16):
            q, j = w + LANES * i, x + i
            w0, w1 = simd.load_bytes(weights, q), simd.load_bytes(weights, q + 64)
            w2, w3 = simd.load_bytes(weights, q + 128), simd.load_bytes(weights, q + 192)
            a0 = simd.dot4_biased(a0, w0, simd.quad(activations, j, 0))
            a1 = simd.dot4_biased(a1, w1, simd.quad(activations, j, 1))
            a2 = simd.dot4_biased(a2, w2, simd.quad(activations, j, 2))
            a3 = simd.dot4_biased(a3, w3, simd.quad(activations, j, 3))
        total = simd.add_i32(simd.add_i32(a0, a1), simd.add_i32(a2, a3))
        scaled = simd.multiply(simd.to_f32(total), simd.multiply(simd.load_f32(weights, p), scale))
        simd.finish(scaled, out, to + block * LANES, m - block * LANES, accumulate)


@njit(**OPTIONS)
def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
    """Write row `row` of W to out[to:to+k]: an embedding."""
    p = start + row // LANES * (64 + (k + 31) // 32 * 32 * LANES)
    scale = simd.peek_f32(weights, p + row % LANES * 4)
    for i in range(k):
        q = weights[p + 64 + i // 4 * 64 + row % LANES * 4 + i % 4]
        out[to + i] = np.float32(np.int32(q) - np.int32(128)) * scale


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32."""
    wide = -(-k // 32) * 32
    blocks = stream.reshape(-1, 64 + LANES * wide)
    scales = np.ascontiguousarray(blocks[:, :64]).view(np.float32).reshape(-1)
    q = blocks[:, 64:].reshape(-1, wide // 4, LANES, 4).transpose(0, 2, 1, 3).reshape(-1, wide)
    return ((q[:m, :k].astype(np.float32) - 128.0) * scales[:m, None]).astype(np.float32)


def draw(m: int, k: int, rng: np.random.Generator) -> Array:
    quantised = rng.integers(-127, 128, (m, k)).astype(np.int8)
    return layout(quantised, rng.uniform(0.001, 0.01, m).astype(np.float32))


WEIGHTS = Weights(
    draw=draw,
    unpack=unpack,
    layout_bytes=layout_bytes,
    activation_bytes=activation_bytes,
    prepare=prepare,
    multiply=multiply,
    rounded=rounding.rounded_row,
    source="symmetric rounding, one scale a row; activations as Dettmers et al. 2022, LLM.int8()",
)
SPEC = matvec("matvec_int8", WEIGHTS)
