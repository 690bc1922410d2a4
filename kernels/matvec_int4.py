"""y = W x with int4 weights in groups of 32 columns, and x rounded to int8 in the same groups.

    y[r] = sum_g scale[r,g] * s[g] * sum_{k in g} (q[r,k] - 8) * round(x[k] / s[g])

Sizes: m rows, k columns. One record for sixteen rows and one group; the surplus 8 * sum(x) is
taken off through the accumulator's first value. Rows and columns past the end are zero.

    record (block, group), 288 B
    | 16 scales float16 | row 0: k0..k3 low, k4..k7 high | row 1 | ... row 15 | row 0: k8.. | ...
      32 B                4 B a row, 64 B for eight columns, 256 B for the group
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.simd import EXACT, LANES, OPTIONS, TINY
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

GROUP, RECORD = 32, 288


def layout(quantised: Array, scale: Array) -> Array:
    """quantised (m,k) uint8 in 0..15, scale (m, ceil(k/32)) float16 -> the stream, uint8."""
    m, k = quantised.shape
    blocks, groups = -(-m // LANES), -(-k // GROUP)
    q = np.full((blocks * LANES, groups * GROUP), 8, np.uint8)
    q[:m, :k] = quantised
    scales = np.zeros((blocks * LANES, groups), np.float16)
    scales[:m] = scale
    eights = q.reshape(blocks, LANES, groups, 4, 2, 4)  # block, row, group, eight, half, k
    nibbles = eights[..., 0, :] | (eights[..., 1, :] << 4)
    payload = nibbles.transpose(0, 2, 3, 1, 4).reshape(blocks, groups, 256)
    heads = scales.reshape(blocks, LANES, groups).transpose(0, 2, 1)
    heads_bytes = np.ascontiguousarray(heads).view(np.uint8).reshape(blocks, groups, 32)
    return np.concatenate([heads_bytes, payload], 2).reshape(-1)


def layout_bytes(m: int, k: int) -> int:
    return -(-m // LANES) * -(-k // GROUP) * RECORD


@njit(**OPTIONS)
def activation_bytes(k: int) -> int:
    return (k + 31) // 32 * 40


@njit(**EXACT)
def prepare(x: Array, at: int, k: int, activations: Array, to: int) -> None:
    """Round x[at:at+k] to int8 by groups of 32 into the byte buffer `activations` at `to`.

    A group is 32 values, its scale (float32) and -8 times the sum of its values (int32).
    """
    zero = simd.splat_f32(np.float32(0.0))
    groups = (k + 31) // 32
    for g in range(groups):
        i, p = at + g * GROUP, to + g * 40
        if g * GROUP + GROUP <= k:
            u, v = simd.load_f32(x, i), simd.load_f32(x, i + LANES)
            top = simd.largest(simd.greater(simd.absolute(u), simd.absolute(v)))
            bad = simd.sum_f32(
                simd.fma(u, zero, simd.multiply(v, zero))
            )  # NaN if any is not finite
            inverse = np.float32(127.0) / top if top > TINY else np.float32(0.0)
            factor = simd.splat_f32(inverse)
            a = simd.round_i32(simd.multiply(u, factor))
            b = simd.round_i32(simd.multiply(v, factor))
            simd.store_i8(activations, p, a)
            simd.store_i8(activations, p + LANES, b)
            total = simd.sum_i32(simd.add_i32(a, b))
        else:
            top, bad, total = np.float32(0.0), np.float32(0.0), np.int32(0)
            for j in range(k - g * GROUP):
                top = max(top, abs(x[i + j]))
                bad += x[i + j] * np.float32(0.0)
            inverse = np.float32(127.0) / top if top > TINY else np.float32(0.0)
            for j in range(GROUP):
                inside = g * GROUP + j < k
                q = np.int32(np.rint(x[i + j] * inverse)) if inside else np.int32(0)
                activations[p + j] = np.uint8(q & np.int32(255))
                total = np.int32(total + q)
        simd.poke_f32(activations, p + 32, top / np.float32(127.0) + bad)
        simd.poke_i32(activations, p + 36, np.int32(total * np.int32(-8)))


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
            x = at + g * 40
            a, b = simd.splat_i32(simd.peek_i32(activations, x + 36)), zero
            for i in range(2):
                w = simd.load_bytes(weights, p + 32 + 128 * i)
                v = simd.load_bytes(weights, p + 96 + 128 * i)
                j = x + 16 * i
                a = simd.dot4_nibbles(a, simd.low_nibbles(w), simd.quad(activations, j, 0))
                b = simd.dot4_nibbles(b, simd.high_nibbles(w), simd.quad(activations, j, 1))
                a = simd.dot4_nibbles(a, simd.low_nibbles(v), simd.quad(activations, j, 2))
                b = simd.dot4_nibbles(b, simd.high_nibbles(v), simd.quad(activations, j, 3))
            scale = simd.multiply(
                simd.load_f16(weights, p), simd.splat_f32(simd.peek_f32(activations, x + 32))
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
        byte = weights[p + 32 + i % GROUP // 8 * 64 + r * 4 + i % 4]
        q = np.int32(byte >> np.uint8(4)) if i % 8 >= 4 else np.int32(byte & np.uint8(15))
        out[to + i] = np.float32(q - np.int32(8)) * scale


@njit(**OPTIONS)
def run(weights: Array, x: Array, activations: Array, y: Array, first: int, last: int) -> None:
    k, m = x.size, y.size
    prepare(x, 0, k, activations, 0)
    multiply(weights, 0, activations, 0, k, m, first, last, y, 0, False)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    m, k = sizes["m"], sizes["k"]
    quantised = rng.integers(0, 16, (m, k)).astype(np.uint8)
    scale = rng.uniform(0.01, 0.1, (m, -(-k // GROUP))).astype(np.float16)
    return layout(quantised, scale), rng.standard_normal(k).astype(np.float32)


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32."""
    groups = -(-k // GROUP)
    records = stream.reshape(-1, groups, RECORD)
    scales = np.ascontiguousarray(records[..., :32]).view(np.float16).astype(np.float32)
    nibbles = records[..., 32:].reshape(-1, groups, 4, LANES, 4)
    q = np.stack([nibbles & 15, nibbles >> 4], -2).astype(np.float32) - 8.0  # (b,g,4,row,2,4)
    values = q.transpose(0, 3, 1, 2, 4, 5).reshape(-1, LANES, groups, GROUP)
    weights = values * scales.transpose(0, 2, 1)[..., None]
    return weights.reshape(-1, groups * GROUP)[:m, :k].astype(np.float32)


def rounded(x: Array) -> Array:
    """x (...,k) float32 as the kernel sees it: each group of 32 rounded to 255 levels."""
    from kernels.matvec_int8 import rounded as whole

    k = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-k // GROUP) * GROUP), np.float32)
    padded[..., :k] = x
    return whole(padded.reshape(*x.shape[:-1], -1, GROUP)).reshape(padded.shape)[..., :k]


def reference(sizes: Sizes, stream: Array, x: Array) -> tuple[Array, ...]:
    import torch

    weights = torch.from_numpy(unpack(stream, sizes["m"], sizes["k"])).double()
    return ((weights @ torch.from_numpy(rounded(x).copy())).numpy(),)


def cost(sizes: Sizes) -> Cost:
    m, k = sizes["m"], sizes["k"]
    return Cost(operations=2 * m * k, moved_bytes=layout_bytes(m, k) + 4 * (m + k))


SPEC = Kernel(
    name="matvec_int4",
    arguments=(
        Argument("weights", "input", np.uint8, (lambda s: layout_bytes(s["m"], s["k"]),)),
        Argument("x", "input", np.float32, ("k",)),
        Argument("activations", "scratch", np.uint8, (lambda s: activation_bytes(s["k"]),)),
        Argument("y", "output", np.float32, ("m",)),
    ),
    example={"m": 48, "k": 96},
    inputs=inputs,
    items=lambda s: -(-s["m"] // LANES),
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="propagates",
    source="symmetric rounding in groups of 32, as the Q4_0 type of llama.cpp",
)
