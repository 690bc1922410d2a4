"""y = silu(gate) * up, element by element. Sizes: n vectors, m values."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.maths import silu
from kernels.simd import OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


@njit(**OPTIONS)
def combine(gate: Array, at: int, up: Array, up_at: int, m: int, out: Array, to: int) -> None:
    """Write silu(gate[at:at+m]) * up[up_at:up_at+m] to out[to:to+m], which may be gate."""
    g, u, y = gate[at : at + m], up[up_at : up_at + m], out[to : to + m]
    for i in range(m):
        y[i] = silu(g[i]) * u[i]


@njit(**OPTIONS)
def run(gate: Array, up: Array, y: Array, first: int, last: int) -> None:
    n, m = gate.shape
    flat, other, out = gate.reshape(n * m), up.reshape(n * m), y.reshape(n * m)
    combine(flat, first * m, other, first * m, (last - first) * m, out, first * m)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    shape = (sizes["n"], sizes["m"])
    return tuple((3 * rng.standard_normal(shape)).astype(np.float32) for _ in range(2))


def reference(sizes: Sizes, gate: Array, up: Array) -> tuple[Array, ...]:
    import torch

    g, u = torch.from_numpy(gate).double(), torch.from_numpy(up).double()
    return ((torch.nn.functional.silu(g) * u).numpy(),)


def cost(sizes: Sizes) -> Cost:
    """exp, add, divide, two products: the exponential counts as 4."""
    values = sizes["n"] * sizes["m"]
    return Cost(operations=8 * values, moved_bytes=12 * values)


SPEC = Kernel(
    name="glu",
    arguments=(
        Argument("gate", "input", np.float32, ("n", "m")),
        Argument("up", "input", np.float32, ("n", "m")),
        Argument("y", "output", np.float32, ("n", "m")),
    ),
    example={"n": 3, "m": 96},
    inputs=inputs,
    items=lambda s: s["n"],
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="propagates",
    source="Shazeer 2020, SwiGLU",
)
