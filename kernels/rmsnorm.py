"""y = gain * x / sqrt(mean(x^2) + epsilon), for each of n vectors. Sizes: n vectors, k values."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.simd import OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


@njit(**OPTIONS)
def normalise(
    x: Array, at: int, k: int, epsilon: float, gain: Array, gain_at: int, out: Array, to: int
) -> None:
    """Write the normalised x[at:at+k] to out[to:to+k]."""
    source, target, scale = x[at : at + k], out[to : to + k], gain[gain_at : gain_at + k]
    squares = np.float32(0.0)
    for i in range(k):
        squares += source[i] * source[i]
    inverse = np.float32(1.0) / np.sqrt(squares / np.float32(k) + np.float32(epsilon))
    for i in range(k):
        target[i] = source[i] * inverse * scale[i]


@njit(**OPTIONS)
def run(x: Array, epsilon: Array, gain: Array, y: Array, first: int, last: int) -> None:
    n, k = x.shape
    flat, out = x.reshape(n * k), y.reshape(n * k)
    for t in range(first, last):
        normalise(flat, t * k, k, epsilon[0], gain, 0, out, t * k)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    x = rng.standard_normal((sizes["n"], sizes["k"])).astype(np.float32)
    epsilon = np.array([1e-5], np.float32)
    return x, epsilon, rng.uniform(0.5, 1.5, sizes["k"]).astype(np.float32)


def reference(sizes: Sizes, x: Array, epsilon: Array, gain: Array) -> tuple[Array, ...]:
    import torch

    values = torch.from_numpy(x).double()
    norm = torch.rsqrt(values.square().mean(-1, keepdim=True) + float(epsilon[0]))
    return ((values * norm * torch.from_numpy(gain).double()).numpy(),)


def cost(sizes: Sizes) -> Cost:
    n, k = sizes["n"], sizes["k"]
    return Cost(operations=n * (4 * k + 4), moved_bytes=4 * (2 * n * k + k + 1))


SPEC = Kernel(
    name="rmsnorm",
    arguments=(
        Argument("x", "input", np.float32, ("n", "k")),
        Argument("epsilon", "input", np.float32, (1,)),
        Argument("gain", "input", np.float32, ("k",)),
        Argument("y", "output", np.float32, ("n", "k")),
    ),
    example={"n": 3, "k": 96},
    inputs=inputs,
    items=lambda s: s["n"],
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="propagates",
    source="Zhang & Sennrich 2019, eq. 4",
)
