"""y = W x in float32. Sizes: m rows, k columns.

Layout: one stream, sixteen rows abreast, so that sums need no shuffling and memory is read in
order. Rows past m are zero.

    block 0 (rows 0-15)                        block 1 (rows 16-31)
    | w[0..15, 0] | w[0..15, 1] | ... k times  | w[16..31, 0] | ...        64 B each
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


def layout(weights: Array) -> Array:
    """weights (m,k) -> the stream (layout_bytes(m,k),) uint8."""
    m, k = weights.shape
    padded = np.zeros((-(-m // LANES) * LANES, k), np.float32)
    padded[:m] = weights
    blocks = padded.reshape(-1, LANES, k).transpose(0, 2, 1)
    return np.ascontiguousarray(blocks).reshape(-1).view(np.uint8)


def layout_bytes(m: int, k: int) -> int:
    return -(-m // LANES) * LANES * k * 4


@njit(**OPTIONS)
def activation_bytes(k: int) -> int:
    return 4 * k


@njit(**OPTIONS)
def prepare(x: Array, at: int, k: int, activations: Array, to: int) -> None:
    """Copy x[at:at+k] into the byte buffer `activations` at `to`."""
    for i in range(k):
        simd.poke_f32(activations, to + 4 * i, x[at + i])


@njit(**OPTIONS)
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
    zero = simd.splat_f32(np.float32(0.0))
    whole = k // 4 * 4
    for block in range(first, last):
        p = start + block * k * 64
        a0 = a1 = a2 = a3 = zero
        for i in range(0, whole, 4):
            q, w = at + 4 * i, p + 64 * i
            x0 = simd.splat_f32(simd.peek_f32(activations, q))
            x1 = simd.splat_f32(simd.peek_f32(activations, q + 4))
            x2 = simd.splat_f32(simd.peek_f32(activations, q + 8))
            x3 = simd.splat_f32(simd.peek_f32(activations, q + 12))
            a0 = simd.fma(simd.load_f32(weights, w), x0, a0)
            a1 = simd.fma(simd.load_f32(weights, w + 64), x1, a1)
            a2 = simd.fma(simd.load_f32(weights, w + 128), x2, a2)
            a3 = simd.fma(simd.load_f32(weights, w + 192), x3, a3)
        for i in range(whole, k):
            x0 = simd.splat_f32(simd.peek_f32(activations, at + 4 * i))
            a0 = simd.fma(simd.load_f32(weights, p + 64 * i), x0, a0)
        total = simd.add(simd.add(a0, a1), simd.add(a2, a3))
        simd.finish(total, out, to + block * LANES, m - block * LANES, accumulate)


@njit(**OPTIONS)
def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
    """Write row `row` of W to out[to:to+k]: an embedding."""
    p = start + row // LANES * k * 64 + row % LANES * 4
    for i in range(k):
        out[to + i] = simd.peek_f32(weights, p + 64 * i)


@njit(**OPTIONS)
def run(weights: Array, x: Array, activations: Array, y: Array, first: int, last: int) -> None:
    k, m = x.size, y.size
    prepare(x, 0, k, activations, 0)
    multiply(weights, 0, activations, 0, k, m, first, last, y, 0, False)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    weights = rng.standard_normal((sizes["m"], sizes["k"])).astype(np.float32)
    return layout(weights), rng.standard_normal(sizes["k"]).astype(np.float32)


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32."""
    blocks = stream.view(np.float32).reshape(-1, k, LANES)
    return blocks.transpose(0, 2, 1).reshape(-1, k)[:m]


def reference(sizes: Sizes, stream: Array, x: Array) -> tuple[Array, ...]:
    import torch

    weights = torch.from_numpy(unpack(stream, sizes["m"], sizes["k"]).copy()).double()
    return ((weights @ torch.from_numpy(x).double()).numpy(),)


def cost(sizes: Sizes) -> Cost:
    m, k = sizes["m"], sizes["k"]
    return Cost(operations=2 * m * k, moved_bytes=layout_bytes(m, k) + 4 * (m + k))


SPEC = Kernel(
    name="matvec_f32",
    arguments=(
        Argument("weights", "input", np.uint8, (lambda s: layout_bytes(s["m"], s["k"]),)),
        Argument("x", "input", np.float32, ("k",)),
        Argument("activations", "scratch", np.uint8, (lambda s: 4 * s["k"],)),
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
    source="definition",
)
