"""Weights of a mixture of experts: softmax over the c largest of R x, and -1 for all others.

Sizes: n vectors, k values, g groups, c of them chosen. Of equal scores the first ones are chosen.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kernels.simd import OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

UNCHOSEN = np.float32(-1.0)  # below zero, so that the group does not run
INFINITE = np.float32(np.inf)


@njit(**OPTIONS)
def route(
    x: Array,
    at: int,
    k: int,
    g: int,
    c: int,
    weights: Array,
    router: int,
    inner: Array,
    inner_to: int,
    scores: Array,
    to: int,
) -> None:
    """Write g weights of x[at:at+k] to scores[to:to+g]; inner[inner_to:][:g] is scratch.

    router: place of R (g,k) in `weights`.
    """
    raw, out, source = inner[inner_to : inner_to + g], scores[to : to + g], x[at : at + k]
    for j in range(g):
        row, total = weights[router + j * k :][:k], np.float32(0.0)
        for i in range(k):
            total += row[i] * source[i]
        raw[j], out[j] = total, UNCHOSEN
    top, total = np.float32(0.0), np.float32(0.0)
    for turn in range(c):
        best, largest = -1, -INFINITE
        for j in range(g):
            if out[j] < 0 and (best < 0 or raw[j] > largest):
                best, largest = j, raw[j]
        top = largest if turn == 0 else top
        out[best] = np.float32(math.exp(largest - top))
        total += out[best]
    for j in range(g):
        if out[j] >= 0:
            out[j] /= total


@njit(**OPTIONS)
def run(x: Array, weights: Array, inner: Array, scores: Array, first: int, last: int) -> None:
    n, k = x.shape
    g, c = scores.shape[1], inner.shape[0] - scores.shape[1]
    flat, out, router = x.reshape(n * k), scores.reshape(n * g), weights.reshape(g * k)
    for t in range(first, last):
        route(flat, t * k, k, g, c, router, 0, inner, 0, out, t * g)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    n, k, g = (sizes[name] for name in "nkg")
    router = rng.standard_normal((g, k)) / k**0.5
    return rng.standard_normal((n, k)).astype(np.float32), router.astype(np.float32)


def reference(sizes: Sizes, x: Array, weights: Array) -> tuple[Array, ...]:
    import torch

    logits = torch.from_numpy(x).double() @ torch.from_numpy(weights).double().T
    places = np.argsort(-logits.numpy(), axis=-1, kind="stable")[:, : sizes["c"]]
    others = np.ones(logits.shape, bool)
    np.put_along_axis(others, places, False, axis=-1)
    left_out = torch.from_numpy(others)
    scores = logits.masked_fill(left_out, -math.inf).softmax(-1)
    return (scores.masked_fill(left_out, float(UNCHOSEN)).numpy(),)


def cost(sizes: Sizes) -> Cost:
    n, k, g, c = (sizes[name] for name in "nkgc")
    return Cost(operations=n * (2 * g * k + 7 * c), moved_bytes=4 * (g * k + n * (k + g)))


SPEC = Kernel(
    name="router",
    arguments=(
        Argument("x", "input", np.float32, ("n", "k")),
        Argument("weights", "input", np.float32, ("g", "k")),
        Argument("inner", "scratch", np.float32, (lambda s: s["g"] + s["c"],)),
        Argument("scores", "output", np.float32, ("n", "g")),
    ),
    example={"n": 2, "k": 96, "g": 10, "c": 3},
    inputs=inputs,
    items=lambda s: s["n"],
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="undefined",  # which are the largest
    source="Shazeer et al. 2017, eq. 3 to 5, without noise",
    settle=lambda s: {**s, "c": min(s["c"], s["g"])},
)
