"""Y = X W^T for n vectors at once, int4 weights and int8 x.

Sizes: n vectors, m rows, k columns. The layout is that of matvec_int4; four vectors share each
weight that is read, the rest go one by one.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import matvec_int4 as single
from kernels import simd
from kernels.simd import EXACT, LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

prepare, lookup = single.prepare, single.lookup
activation_bytes = single.activation_bytes
_one = single.multiply


@njit(**EXACT)
def _scale(activations: Array, at: int) -> simd.Vector:
    return simd.splat_f32(simd.peek_f32(activations, at))


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
    """Row blocks first..last of W for n prepared vectors, `stride` bytes apart.

    Vector t is written or added to out[to + t*pitch:][:m]. W starts at byte `start`.
    """
    fours = n // 4 * 4
    for block in range(first, last):
        for t in range(0, fours, 4):
            _four(
                weights,
                start,
                activations,
                at + t * stride,
                stride,
                k,
                m,
                block,
                out,
                to + t * pitch,
                pitch,
                accumulate,
            )
        for t in range(fours, n):
            _one(
                weights,
                start,
                activations,
                at + t * stride,
                k,
                m,
                block,
                block + 1,
                out,
                to + t * pitch,
                accumulate,
            )


@njit(**EXACT)
def _four(
    weights: Array,
    start: int,
    activations: Array,
    at: int,
    stride: int,
    k: int,
    m: int,
    block: int,
    out: Array,
    to: int,
    pitch: int,
    accumulate: bool,
) -> None:
    """One row block for four vectors."""
    groups = (k + 31) // 32
    f0 = f1 = f2 = f3 = simd.splat_f32(np.float32(0.0))
    x0, x1, x2, x3 = at, at + stride, at + 2 * stride, at + 3 * stride
    p = start + block * groups * single.RECORD
    for _ in range(groups):
        a0 = simd.splat_i32(simd.peek_i32(activations, x0 + 36))
        a1 = simd.splat_i32(simd.peek_i32(activations, x1 + 36))
        a2 = simd.splat_i32(simd.peek_i32(activations, x2 + 36))
        a3 = simd.splat_i32(simd.peek_i32(activations, x3 + 36))
        for i in range(4):
            w, j = simd.load_bytes(weights, p + 32 + 64 * i), 8 * i
            low, high = simd.low_nibbles(w), simd.high_nibbles(w)
            a0 = simd.dot4_nibbles(a0, low, simd.repeat4(activations, x0 + j))
            a1 = simd.dot4_nibbles(a1, low, simd.repeat4(activations, x1 + j))
            a2 = simd.dot4_nibbles(a2, low, simd.repeat4(activations, x2 + j))
            a3 = simd.dot4_nibbles(a3, low, simd.repeat4(activations, x3 + j))
            a0 = simd.dot4_nibbles(a0, high, simd.repeat4(activations, x0 + j + 4))
            a1 = simd.dot4_nibbles(a1, high, simd.repeat4(activations, x1 + j + 4))
            a2 = simd.dot4_nibbles(a2, high, simd.repeat4(activations, x2 + j + 4))
            a3 = simd.dot4_nibbles(a3, high, simd.repeat4(activations, x3 + j + 4))
        scale = simd.load_f16(weights, p)
        f0 = simd.fma(simd.to_f32(a0), simd.multiply(scale, _scale(activations, x0 + 32)), f0)
        f1 = simd.fma(simd.to_f32(a1), simd.multiply(scale, _scale(activations, x1 + 32)), f1)
        f2 = simd.fma(simd.to_f32(a2), simd.multiply(scale, _scale(activations, x2 + 32)), f2)
        f3 = simd.fma(simd.to_f32(a3), simd.multiply(scale, _scale(activations, x3 + 32)), f3)
        p, x0, x1, x2, x3 = p + single.RECORD, x0 + 40, x1 + 40, x2 + 40, x3 + 40
    rows, p = m - block * LANES, to + block * LANES
    simd.finish(f0, out, p, rows, accumulate)
    simd.finish(f1, out, p + pitch, rows, accumulate)
    simd.finish(f2, out, p + 2 * pitch, rows, accumulate)
    simd.finish(f3, out, p + 3 * pitch, rows, accumulate)


@njit(**OPTIONS)
def run(weights: Array, x: Array, activations: Array, y: Array, first: int, last: int) -> None:
    n, k = x.shape
    m, stride = y.shape[1], activation_bytes(k)
    flat, out = x.reshape(n * k), y.reshape(n * m)
    for t in range(n):
        prepare(flat, t * k, k, activations, t * stride)
    multiply(weights, 0, activations, 0, stride, n, k, m, first, last, out, 0, m, False)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    weights, _ = single.inputs(sizes, rng)
    return weights, rng.standard_normal((sizes["n"], sizes["k"])).astype(np.float32)


def reference(sizes: Sizes, stream: Array, x: Array) -> tuple[Array, ...]:
    import torch

    weights = torch.from_numpy(single.unpack(stream, sizes["m"], sizes["k"]).copy()).double()
    return ((torch.from_numpy(single.rounded(x).copy()) @ weights.T).numpy(),)


def cost(sizes: Sizes) -> Cost:
    n, m, k = sizes["n"], sizes["m"], sizes["k"]
    return Cost(
        operations=2 * n * m * k,
        moved_bytes=single.layout_bytes(m, k) + 4 * n * (m + k),
    )


SPEC = Kernel(
    name="matmul_int4",
    arguments=(
        Argument("weights", "input", np.uint8, (lambda s: single.layout_bytes(s["m"], s["k"]),)),
        Argument("x", "input", np.float32, ("n", "k")),
        Argument(
            "activations", "scratch", np.uint8, (lambda s: s["n"] * activation_bytes(s["k"]),)
        ),
        Argument("y", "output", np.float32, ("n", "m")),
    ),
    example={"n": 6, "m": 48, "k": 96},
    inputs=inputs,
    items=lambda s: -(-s["m"] // LANES),
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="propagates",
    source="as matvec_int4",
)
