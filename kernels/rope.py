"""Rotary positions, in place: pair (i, i + w/2) of each head turns by position * speed(i).

Sizes: n tokens from position `depth`, h heads, w values a head (even). Speeds are a table of w
values, made by `split`, so that how a model stretches them is not known here.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.simd import OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


def split(speeds: Array) -> Array:
    """Float64 speeds (w/2,) -> float32 (w,): their high parts, then what those leave out."""
    high = speeds.astype(np.float32)
    return np.concatenate([high, (speeds - high).astype(np.float32)])


@njit(**OPTIONS)
def angles(depth: int, n: int, w: int, speeds: Array, at: int, table: Array, to: int) -> None:
    """Write cosines then sines, w/2 each, of positions depth.. to table[to : to + n*w]."""
    half = w // 2
    for t in range(n):
        for i in range(half):
            # float64: at position 16384 a float32 angle is off by a thousandth
            speed = np.float64(speeds[at + i]) + np.float64(speeds[at + half + i])
            angle = np.float64(depth + t) * speed
            table[to + t * w + i] = np.float32(np.cos(angle))
            table[to + t * w + half + i] = np.float32(np.sin(angle))


@njit(**OPTIONS)
def rotate(x: Array, at: int, w: int, table: Array, table_at: int) -> None:
    """Turn one head x[at:at+w] by one row of the table."""
    half = w // 2
    low, high = x[at : at + half], x[at + half : at + w]
    cosine, sine = table[table_at : table_at + half], table[table_at + half : table_at + w]
    for i in range(half):
        a, b = low[i], high[i]
        low[i] = a * cosine[i] - b * sine[i]
        high[i] = a * sine[i] + b * cosine[i]


@njit(**OPTIONS)
def run(depth: Array, speeds: Array, x: Array, table: Array, first: int, last: int) -> None:
    n, h, w = x.shape
    flat = x.reshape(n * h * w)
    angles(depth[0], n, w, speeds, 0, table, 0)
    for t in range(first, last):
        for head in range(h):
            rotate(flat, (t * h + head) * w, w, table, t * w)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    shape = (sizes["n"], sizes["h"], sizes["w"])
    depth = np.array([int(rng.integers(0, 5000))])
    speeds = 10000.0 ** (-2.0 * np.arange(sizes["w"] // 2) / sizes["w"])
    return depth, split(speeds), rng.standard_normal(shape).astype(np.float32)


def reference(sizes: Sizes, depth: Array, speeds: Array, x: Array) -> tuple[Array, ...]:
    """As a complex product: (x_i + j x_{i+w/2}) * e^{j angle}."""
    import torch

    half = sizes["w"] // 2
    values = torch.from_numpy(x).double()
    position = torch.arange(sizes["n"]).double() + float(depth[0])
    rate = torch.from_numpy(speeds).double().view(2, half).sum(0)
    turn = torch.polar(torch.ones(sizes["n"], half).double(), position[:, None] * rate)
    turned = torch.complex(values[..., :half], values[..., half:]) * turn[:, None]
    return (torch.cat([turned.real, turned.imag], -1).numpy(),)


def cost(sizes: Sizes) -> Cost:
    n, h, w = sizes["n"], sizes["h"], sizes["w"]
    return Cost(operations=3 * n * h * w, moved_bytes=8 * n * h * w + 8 + 4 * w)


SPEC = Kernel(
    name="rope",
    arguments=(
        Argument("depth", "input", np.int64, (1,)),
        Argument("speeds", "input", np.float32, ("w",)),
        Argument("x", "state", np.float32, ("n", "h", "w")),
        Argument("table", "scratch", np.float32, (lambda s: s["n"] * s["w"],)),
    ),
    example={"n": 3, "h": 2, "w": 16},
    inputs=inputs,
    items=lambda s: s["n"],
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="propagates",
    source="Su et al. 2021, RoFormer, eq. 34, halves paired as in the Llama weights",
    settle=lambda s: {**s, "w": s["w"] + s["w"] % 2},
)
