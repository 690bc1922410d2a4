"""Scores of groups of neurons from a layer's input: B (A x) + bias; a group runs above zero.

Sizes: n vectors, k values, r inner values (the rank), g groups.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.simd import OPTIONS
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
    """Write g scores of x[at:at+k] to scores[to:to+g]; inner[inner_to:][:r] is scratch."""
    source = x[at : at + k]
    for j in range(r):
        row, total = weights[inner_at + j * k : inner_at + j * k + k], np.float32(0.0)
        for i in range(k):
            total += row[i] * source[i]
        inner[inner_to + j] = total
    for j in range(g):
        total = weights[bias_at + j]
        for i in range(r):
            total += weights[outer_at + j * r + i] * inner[inner_to + i]
        scores[to + j] = total


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
    A, B, bias = values[: r * k].view(r, k), values[r * k : -g].view(g, r), values[-g:]
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
