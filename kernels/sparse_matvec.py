"""y = W x where only the weights that are not zero are stored, row by row.

Sizes: m rows, k columns (at most 65535), z stored weights. One stream:

    | starts int32 (m+1) | columns uint16 (z, padded to an even number) | values float32 (z) |

Each weight costs 6 bytes and a gather, so this beats a dense format only when most are zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.floats import activation_bytes, prepare
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

__all__ = ["activation_bytes", "lookup", "multiply", "prepare"]


def layout(starts: Array, columns: Array, values: Array) -> Array:
    """starts (m+1,), columns (z,), values (z,) -> the stream (layout_bytes(m,z),) uint8."""
    even = np.zeros(columns.size + columns.size % 2, np.uint16)
    even[: columns.size] = columns
    parts = (starts.astype(np.int32), even, values.astype(np.float32))
    return np.concatenate([part.view(np.uint8) for part in parts])


def layout_bytes(m: int, z: int) -> int:
    return 4 * (m + 1) + 2 * (z + z % 2) + 4 * z


@njit(**OPTIONS)
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
    """Rows 16*first..16*last of W for n float32 vectors; the same call as matmul_f32.multiply."""
    stored = simd.peek_i32(weights, start + 4 * m)
    columns = start + 4 * (m + 1)
    values = columns + 2 * (stored + stored % 2)
    starts = weights[start:columns].view(np.int32)
    column = weights[columns:values].view(np.uint16)
    value = weights[values : values + 4 * stored].view(np.float32)
    for t in range(n):
        x = activations[at + t * stride : at + t * stride + 4 * k].view(np.float32)
        y = out[to + t * pitch : to + t * pitch + m]
        for row in range(first * LANES, min(last * LANES, m)):
            y[row] = _row(value, column, x, starts[row], starts[row + 1]) + (
                y[row] if accumulate else np.float32(0.0)
            )


@njit(**OPTIONS)
def _row(value: Array, column: Array, x: Array, first: int, last: int) -> np.float32:
    """Stored weights first..last against x; four sums, so that additions need not wait."""
    v, c = value[first:last], column[first:last]  # counted from 0, no index can be negative
    a0 = a1 = a2 = a3 = np.float32(0.0)
    fours = v.size // 4
    for p in range(fours):
        a0 += v[4 * p] * x[c[4 * p]]
        a1 += v[4 * p + 1] * x[c[4 * p + 1]]
        a2 += v[4 * p + 2] * x[c[4 * p + 2]]
        a3 += v[4 * p + 3] * x[c[4 * p + 3]]
    for p in range(4 * fours, v.size):
        a0 += v[p] * x[c[p]]
    return a0 + a1 + a2 + a3


@njit(**OPTIONS)
def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
    """Write row `row` of W to out[to:to+k]: an embedding."""
    stored = simd.peek_i32(weights, start + 4 * m)
    columns = start + 4 * (m + 1)
    values = columns + 2 * (stored + stored % 2)
    for i in range(k):
        out[to + i] = np.float32(0.0)
    first, last = (
        simd.peek_i32(weights, start + 4 * row),
        simd.peek_i32(weights, start + 4 * row + 4),
    )
    for p in range(first, last):
        column = np.int32(weights[columns + 2 * p]) + np.int32(weights[columns + 2 * p + 1]) * 256
        out[to + column] = simd.peek_f32(weights, values + 4 * p)


@njit(**OPTIONS)
def run(weights: Array, x: Array, activations: Array, y: Array, first: int, last: int) -> None:
    k, m = x.size, y.size
    prepare(x, 0, k, activations, 0)
    multiply(weights, 0, activations, 0, 0, 1, k, m, first, last, y, 0, 0, False)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    m, k, z = sizes["m"], sizes["k"], sizes["z"]
    places = np.sort(rng.choice(m * k, z, replace=False))
    starts = np.concatenate([[0], np.cumsum(np.bincount(places // k, minlength=m))])
    values = rng.standard_normal(z)
    return layout(starts, (places % k).astype(np.uint16), values), rng.standard_normal(k).astype(
        np.float32
    )


def unpack(stream: Array, m: int, k: int) -> Array:
    """The stream back as (m,k) float32, zeros filled in."""
    starts = stream[: 4 * (m + 1)].view(np.int32)
    z = int(starts[-1])
    rest = stream[4 * (m + 1) :]
    columns = rest[: 2 * z].view(np.uint16)
    values = rest[2 * (z + z % 2) :].view(np.float32)
    weights = np.zeros((m, k), np.float32)
    weights[np.repeat(np.arange(m), np.diff(starts)), columns] = values
    return weights


def reference(sizes: Sizes, stream: Array, x: Array) -> tuple[Array, ...]:
    import torch

    weights = torch.from_numpy(unpack(stream, sizes["m"], sizes["k"])).double()
    return ((weights @ torch.from_numpy(x).double()).numpy(),)


def cost(sizes: Sizes) -> Cost:
    m, k, z = sizes["m"], sizes["k"], sizes["z"]
    return Cost(operations=2 * z, moved_bytes=layout_bytes(m, z) + 4 * (m + k))


SPEC = Kernel(
    name="sparse_matvec",
    arguments=(
        Argument("weights", "input", np.uint8, (lambda s: layout_bytes(s["m"], s["z"]),)),
        Argument("x", "input", np.float32, ("k",)),
        Argument("activations", "scratch", np.uint8, (lambda s: 4 * s["k"],)),
        Argument("y", "output", np.float32, ("m",)),
    ),
    example={"m": 40, "k": 50, "z": 900},
    inputs=inputs,
    items=lambda s: -(-s["m"] // LANES),
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="undefined",  # a NaN under a weight that is not stored is not read
    source="compressed sparse rows",
    settle=lambda s: {
        **s,
        "k": min(s["k"], 65535),
        "z": min(s["z"], s["m"] * min(s["k"], 65535)),
    },
)
