"""Gated ffn over the chosen groups of neurons only: y = sum_g down_g (silu(gate_g x) * up_g x).

A group is `w` neighbouring neurons (a multiple of sixteen); it runs for a vector when that vector's
score of it is above zero. What is not chosen by any vector is not read.

Sizes: n vectors, k inputs, m outputs, g groups, w neurons a group. Memory is fast where it is read
in order, and every jump costs about a microsecond, so that all weights of a group are one record:

    record 0 (group 0)                                        record 1 ...
    | gate (w,k) | up (w,k) | down (m,w): each a stream of the format, padded to 64 B |

Vectors that chose a group go through it together; see groups.py and choice.py.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import choice, groups, matmul_f32, matvec_f32
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


@njit(**OPTIONS)
def run(
    x: Array,
    scores: Array,
    weights: Array,
    activations: Array,
    hidden: Array,
    table: Array,
    sums: Array,
    y: Array,
    first: int,
    last: int,
) -> None:
    n, k = x.shape
    g, m = scores.shape[1], y.shape[1]
    w, stride = hidden.size // (2 * n * g), 4 * k
    pitch = weights.size // g
    up, down = part_bytes(w, k), 2 * part_bytes(w, k)
    flat, out = x.reshape(n * k), y.reshape(n * m)
    for t in range(n):
        matmul_f32.prepare(flat, t * k, k, activations, t * stride)
        y[t, first * LANES : min(last * LANES, m)] = np.float32(0.0)
    count = choice.choose(scores.reshape(n * g), 0, n, g, table, 0)
    everything = choice.units(table, 0, g, count, w)
    for c in range(count):
        record = int(table[c]) * pitch
        following = int(table[c + 1]) * pitch if c + 1 < count else -1
        groups.gather(
            matmul_f32.multiply, weights, record, record + up, activations, 0, stride, n * stride,
            n, k, g, w, table, 0, c, 0, everything, -1, hidden, 0,
        )  # fmt: skip
        groups.scatter(
            matmul_f32.prepare, matmul_f32.multiply, weights, record + down, following, hidden, 0,
            2 * w, activations, 2 * n * stride, 4 * w, n, g, w, m, table, 0, c, first, last, sums,
            0, out, 0,
        )  # fmt: skip


@njit(**OPTIONS)
def part_bytes(m: int, k: int) -> int:
    """What a float32 matrix (m,k) takes in a record."""
    return (m + LANES - 1) // LANES * LANES * k * 4


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    n, k, m, g, w = (sizes[name] for name in "nkmgw")
    streams = []
    for _ in range(g):
        matrices = [rng.standard_normal((w, k)) / k**0.5 for _ in range(2)]
        matrices.append(rng.standard_normal((m, w)) / (g * w) ** 0.5)
        streams += [matvec_f32.layout(a.astype(np.float32)) for a in matrices]
    x, scores = rng.standard_normal((n, k)), rng.standard_normal((n, g))
    return x.astype(np.float32), scores.astype(np.float32), np.concatenate(streams)


def reference(sizes: Sizes, x: Array, scores: Array, weights: Array) -> tuple[Array, ...]:
    import torch

    n, k, m, g, w = (sizes[name] for name in "nkmgw")
    one = matvec_f32.layout_bytes(w, k)
    vectors, y = torch.from_numpy(x).double(), torch.zeros(n, m).double()
    for j, record in enumerate(weights.reshape(g, -1)):
        parts = ((record[:one], w, k), (record[one : 2 * one], w, k), (record[2 * one :], m, w))
        G, U, D = (torch.from_numpy(matvec_f32.unpack(*p).copy()).double() for p in parts)
        runs = torch.from_numpy(scores[:, j] > 0).double()[:, None]
        y += runs * ((torch.nn.functional.silu(vectors @ G.T) * (vectors @ U.T)) @ D.T)
    return (y.numpy(),)


def weight_bytes(sizes: Sizes) -> int:
    k, m, g, w = (sizes[name] for name in "kmgw")
    return g * (2 * matvec_f32.layout_bytes(w, k) + matvec_f32.layout_bytes(m, w))


def cost(sizes: Sizes) -> Cost:
    """With every group chosen by every vector; a share of them costs that share."""
    n, k, m, g, w = (sizes[name] for name in "nkmgw")
    return Cost(
        operations=n * g * w * (4 * k + 2 * m + 8),
        moved_bytes=weight_bytes(sizes) + 4 * n * (k + g + m),
    )


SPEC = Kernel(
    name="selective_ffn",
    arguments=(
        Argument("x", "input", np.float32, ("n", "k")),
        Argument("scores", "input", np.float32, ("n", "g")),
        Argument("weights", "input", np.uint8, (weight_bytes,)),
        Argument(
            "activations", "scratch", np.uint8, (lambda s: 4 * s["n"] * (2 * s["k"] + s["w"]),)
        ),
        Argument("hidden", "scratch", np.float32, (lambda s: 2 * s["n"] * s["g"] * s["w"],)),
        Argument("table", "scratch", np.float32, (lambda s: choice.table_size(s["n"], s["g"]),)),
        Argument("sums", "scratch", np.float32, (lambda s: s["n"] * s["m"],)),
        Argument("y", "output", np.float32, ("n", "m")),
    ),
    example={"n": 3, "k": 64, "m": 48, "g": 5, "w": 32},
    inputs=inputs,
    items=lambda s: -(-s["m"] // LANES),
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="undefined",  # a NaN score chooses nothing
    source="hard choice of neuron groups; ours, after public descriptions of brain-like activation",
    settle=lambda s: {**s, "w": -(-s["w"] // LANES) * LANES},
)
