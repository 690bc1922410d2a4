"""Scores of groups of neurons from a layer's input: B (A x) + bias; a group runs above zero.

Sizes: n vectors, k values, r inner values (the rank), g groups.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


@njit(**OPTIONS)
def score(
    x: Array,
    at: int,
    k: int,
    r: int,
    g: int,
    weights: Array,
    inner_at: int,
    outer_at: int,
    bias_at: int,
    inner: Array,
    inner_to: int,
    scores: Array,
    to: int,
) -> None:
    """Write g scores of x[at:at+k] to scores[to:to+g]; inner[inner_to:][:r] is scratch.

    inner_at: A (r,k); outer_at: B transposed, (r,g); bias_at: (g,); all in `weights`.
    """
    for j in range(0, r // 4 * 4, 4):
        _four(x, at, k, weights, inner_at + j * k, inner, inner_to + j)
    for j in range(r // 4 * 4, r):
        row, source, total = weights[inner_at + j * k :][:k], x[at : at + k], np.float32(0.0)
        for i in range(k):
            total += row[i] * source[i]
        inner[inner_to + j] = total
    out, bias = scores[to : to + g], weights[bias_at : bias_at + g]
    for i in range(g):  # assigning a slice would compile the checks of its shape, for two seconds
        out[i] = bias[i]
    for j in range(r):
        factor, column = inner[inner_to + j], weights[outer_at + j * g :][:g]
        for i in range(g):
            out[i] += factor * column[i]


@njit(**OPTIONS)
def _four(x: Array, at: int, k: int, weights: Array, row: int, out: Array, to: int) -> None:
    """Four rows at once: as many streams of memory as there are sums."""
    whole = k // LANES * LANES
    a0 = a1 = a2 = a3 = simd.splat_f32(np.float32(0.0))
    for i in range(0, whole, LANES):
        v, p = simd.load_f32(x, at + i), row + i
        a0 = simd.fma(simd.load_f32(weights, p), v, a0)
        a1 = simd.fma(simd.load_f32(weights, p + k), v, a1)
        a2 = simd.fma(simd.load_f32(weights, p + 2 * k), v, a2)
        a3 = simd.fma(simd.load_f32(weights, p + 3 * k), v, a3)
    out[to], out[to + 1] = simd.sum_f32(a0), simd.sum_f32(a1)
    out[to + 2], out[to + 3] = simd.sum_f32(a2), simd.sum_f32(a3)
    for i in range(whole, k):
        for j in range(4):
            out[to + j] += weights[row + j * k + i] * x[at + i]


@njit(**OPTIONS)
def run(x: Array, weights: Array, inner: Array, scores: Array, first: int, last: int) -> None:
    n, k = x.shape
    g, r = scores.shape[1], inner.size
    flat, out = x.reshape(n * k), scores.reshape(n * g)
    for t in range(first, last):
        score(flat, t * k, k, r, g, weights, 0, r * k, r * k + g * r, inner, 0, out, t * g)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    n, k, r, g = (sizes[name] for name in "nkrg")
    weights = rng.standard_normal(r * k + g * r + g) * 0.3
    return rng.standard_normal((n, k)).astype(np.float32), weights.astype(np.float32)


def reference(sizes: Sizes, x: Array, weights: Array) -> tuple[Array, ...]:
    import torch

    k, r, g = sizes["k"], sizes["r"], sizes["g"]
    values = torch.from_numpy(weights).double()
    A, B, bias = values[: r * k].view(r, k), values[r * k : -g].view(r, g).T, values[-g:]
    return ((torch.from_numpy(x).double() @ A.T @ B.T + bias).numpy(),)


def cost(sizes: Sizes) -> Cost:
    n, k, r, g = (sizes[name] for name in "nkrg")
    weights = r * k + g * r + g
    return Cost(operations=2 * n * r * (k + g), moved_bytes=4 * (weights + n * (k + g)))


SPEC = Kernel(
    name="selector",
    arguments=(
        Argument("x", "input", np.float32, ("n", "k")),
        Argument(
            "weights",
            "input",
            np.float32,
            (lambda s: s["r"] * s["k"] + s["g"] * s["r"] + s["g"],),
        ),
        Argument("inner", "scratch", np.float32, ("r",)),
        Argument("scores", "output", np.float32, ("n", "g")),
    ),
    example={"n": 2, "k": 96, "r": 8, "g": 10},
    inputs=inputs,
    items=lambda s: s["n"],
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="propagates",
    source="a low-rank linear selector; ours",
)
