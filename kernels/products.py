"""Weights in some storage -> the SPECs of their products with one vector and with n at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How a matrix W (m,k) is stored, and multiplied by a vector that was prepared for it.

    draw(m, k, random) -> a random stream; unpack(stream, m, k) -> the float32 weights it stands for
    layout_bytes(m, k): length of the stream
    activation_bytes(k): length of a prepared vector
    prepare(x, at, k, activations, to): x[at:at+k] into the bytes `activations` from `to`
    multiply(weights, start, activations, at, k, m, first, last, out, to, accumulate): row blocks
        first..last of W x, written or added to out[to:to+m]; W starts at byte `start`
    rounded(x) -> x (...,k) as the kernel sees it, float64
    """

    draw: Callable[[int, int, np.random.Generator], Array]
    unpack: Callable[[Array, int, int], Array]
    layout_bytes: Callable[[int, int], int]
    activation_bytes: Callable[[int], int]
    prepare: Callable[..., None]
    multiply: Callable[..., None]
    rounded: Callable[[Array], Array]
    source: str


def matvec(name: str, w: Weights) -> Kernel:
    """y = W x. Sizes: m rows, k columns."""
    prepare, multiply = w.prepare, w.multiply

    @njit(**OPTIONS)
    def run(weights: Array, x: Array, activations: Array, y: Array, first: int, last: int) -> None:
        k, m = x.size, y.size
        prepare(x, 0, k, activations, 0)
        multiply(weights, 0, activations, 0, k, m, first, last, y, 0, False)

    return _kernel(name, w, run, many=False)


def matmul(name: str, w: Weights, multiply: Callable[..., None]) -> Kernel:
    """Y = X W^T. Sizes: n vectors, m rows, k columns.

    multiply(weights, start, activations, at, stride, n, k, m, first, last, out, to, pitch,
    accumulate): as that of one vector, for n of them, `stride` bytes and `pitch` outputs apart
    """
    prepare, activation_bytes = w.prepare, w.activation_bytes

    @njit(**OPTIONS)
    def run(weights: Array, x: Array, activations: Array, y: Array, first: int, last: int) -> None:
        n, k = x.shape
        m, stride = y.shape[1], activation_bytes(k)
        flat, out = x.reshape(n * k), y.reshape(n * m)
        for t in range(n):
            prepare(flat, t * k, k, activations, t * stride)
        multiply(weights, 0, activations, 0, stride, n, k, m, first, last, out, 0, m, False)

    return _kernel(name, w, run, many=True)


def _kernel(name: str, w: Weights, run: Callable[..., None], many: bool) -> Kernel:
    def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
        stream = w.draw(sizes["m"], sizes["k"], rng)
        shape = (sizes["n"], sizes["k"]) if many else (sizes["k"],)
        return stream, rng.standard_normal(shape).astype(np.float32)

    def reference(sizes: Sizes, stream: Array, x: Array) -> tuple[Array, ...]:
        import torch

        weights = torch.from_numpy(w.unpack(stream, sizes["m"], sizes["k"]).copy()).double()
        return ((torch.from_numpy(w.rounded(x).copy()) @ weights.T).numpy(),)

    def cost(sizes: Sizes) -> Cost:
        n, m, k = sizes.get("n", 1), sizes["m"], sizes["k"]
        return Cost(operations=2 * n * m * k, moved_bytes=w.layout_bytes(m, k) + 4 * n * (m + k))

    vectors = ("n",) if many else ()
    return Kernel(
        name=name,
        arguments=(
            Argument("weights", "input", np.uint8, (lambda s: w.layout_bytes(s["m"], s["k"]),)),
            Argument("x", "input", np.float32, (*vectors, "k")),
            Argument(
                "activations",
                "scratch",
                np.uint8,
                (lambda s: s.get("n", 1) * w.activation_bytes(s["k"]),),
            ),
            Argument("y", "output", np.float32, (*vectors, "m")),
        ),
        example={"n": 6, "m": 48, "k": 96} if many else {"m": 48, "k": 96},
        inputs=inputs,
        items=lambda s: -(-s["m"] // LANES),
        run=run,
        reference=reference,
        cost=cost,
        rtol=1e-5,
        nan="propagates",
        source=w.source,
    )
