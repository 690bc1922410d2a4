"""Gated ffn over the chosen groups of neurons only: y = sum_g down_g (silu(gate_g x) * up_g x).

A group is `w` neighbouring neurons (a multiple of sixteen). Groups that are not chosen cost
nothing: their weights are not read. gate and up are laid out as one matrix each, so that a group
is one contiguous run of row blocks; down is one matrix (m, w) a group for the same reason.

Sizes: k inputs, m outputs, g groups, w neurons a group. Group j runs iff scores[j] > 0.
`gather` and `scatter` work in any weight format: they take its `prepare` and `multiply`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from kernels import glu, matmul_f32, matvec_f32
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


@njit(**OPTIONS)
def choose(scores: Array, at: int, g: int, chosen: Array, to: int) -> int:
    """Write the numbers of the groups that run to chosen[to:]; returns how many."""
    count = 0
    for j in range(g):
        if scores[at + j] > np.float32(0.0):
            chosen[to + count] = j
            count += 1
    return count


@njit(**OPTIONS)
def gather(
    multiply: Callable[..., None],
    weights: Array,
    gate_at: int,
    up_at: int,
    activations: Array,
    at: int,
    k: int,
    g: int,
    w: int,
    chosen: Array,
    chosen_at: int,
    first: int,
    last: int,
    hidden: Array,
    to: int,
) -> None:
    """Activations of the chosen groups first..last, to hidden[to + neuron]; uses 2*g*w there."""
    neurons, blocks = g * w, w // LANES
    up = to + neurons
    for j in range(first, last):
        group = int(chosen[chosen_at + j])
        begin, end = group * blocks, (group + 1) * blocks
        multiply(
            weights, gate_at, activations, at, 0, 1, k, neurons, begin, end, hidden, to, 0, False
        )
        multiply(
            weights, up_at, activations, at, 0, 1, k, neurons, begin, end, hidden, up, 0, False
        )
        here = to + group * w
        glu.combine(hidden, here, hidden, here + neurons, w, hidden, here)


@njit(**OPTIONS)
def scatter(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    weights: Array,
    down_at: int,
    down_bytes: int,
    hidden: Array,
    at: int,
    w: int,
    m: int,
    chosen: Array,
    chosen_at: int,
    count: int,
    activations: Array,
    prepared_at: int,
    first: int,
    last: int,
    out: Array,
    to: int,
) -> None:
    """Add row blocks first..last of the down projection of every chosen group to out[to:to+m]."""
    for j in range(count):
        group = int(chosen[chosen_at + j])
        prepare(hidden, at + group * w, w, activations, prepared_at)
        multiply(
            weights, down_at + group * down_bytes, activations, prepared_at, 0, 1, w, m,
            first, last, out, to, 0, True,
        )  # fmt: skip


@njit(**OPTIONS)
def run(
    x: Array,
    scores: Array,
    weights: Array,
    activations: Array,
    hidden: Array,
    chosen: Array,
    y: Array,
    first: int,
    last: int,
) -> None:
    k, g, m = x.size, scores.size, y.size
    w, prepared = hidden.size // (2 * g), activations.size // 2
    up_at = g * w * k * 4  # w is a multiple of 16, so nothing is padded
    matmul_f32.prepare(x, 0, k, activations, 0)
    count = choose(scores, 0, g, chosen, 0)
    gather(
        matmul_f32.multiply, weights, 0, up_at, activations, 0, k, g, w, chosen, 0, 0, count,
        hidden, 0,
    )  # fmt: skip
    y[first * LANES : min(last * LANES, m)] = np.float32(0.0)
    scatter(
        matmul_f32.prepare, matmul_f32.multiply, weights, 2 * up_at,
        (weights.size - 2 * up_at) // g, hidden, 0, w, m, chosen, 0, count, activations,
        prepared, first, last, y, 0,
    )  # fmt: skip


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    k, m, g, w = (sizes[name] for name in "kmgw")
    matrices = [rng.standard_normal((g * w, k)) / k**0.5 for _ in range(2)]
    matrices += [rng.standard_normal((m, w)) / (g * w) ** 0.5 for _ in range(g)]
    weights = np.concatenate([matvec_f32.layout(a.astype(np.float32)) for a in matrices])
    x, scores = rng.standard_normal(k), rng.standard_normal(g)
    return x.astype(np.float32), scores.astype(np.float32), weights


def reference(sizes: Sizes, x: Array, scores: Array, weights: Array) -> tuple[Array, ...]:
    import torch

    k, m, g, w = (sizes[name] for name in "kmgw")
    one = g * w * k * 4
    parts = (weights[:one], weights[one : 2 * one])
    G, U = (torch.from_numpy(matvec_f32.unpack(a, g * w, k).copy()).double() for a in parts)
    vector = torch.from_numpy(x).double()
    hidden = torch.nn.functional.silu(G @ vector) * (U @ vector)
    y = torch.zeros(m).double()
    for j, part in enumerate(weights[2 * one :].reshape(g, -1)):
        if scores[j] > 0:
            matrix = torch.from_numpy(matvec_f32.unpack(part, m, w).copy()).double()
            y += matrix @ hidden[j * w : (j + 1) * w]
    return (y.numpy(),)


def weight_bytes(sizes: Sizes) -> int:
    k, m, g, w = (sizes[name] for name in "kmgw")
    return 2 * matvec_f32.layout_bytes(g * w, k) + g * matvec_f32.layout_bytes(m, w)


def cost(sizes: Sizes) -> Cost:
    """With every group chosen; a share of them costs that share."""
    k, m, g, w = (sizes[name] for name in "kmgw")
    return Cost(
        operations=g * w * (4 * k + 2 * m + 8),
        moved_bytes=weight_bytes(sizes) + 4 * (k + g + m),
    )


SPEC = Kernel(
    name="selective_ffn",
    arguments=(
        Argument("x", "input", np.float32, ("k",)),
        Argument("scores", "input", np.float32, ("g",)),
        Argument("weights", "input", np.uint8, (weight_bytes,)),
        Argument("activations", "scratch", np.uint8, (lambda s: 8 * max(s["k"], s["w"]),)),
        Argument("hidden", "scratch", np.float32, (lambda s: 2 * s["g"] * s["w"],)),
        Argument("chosen", "scratch", np.int64, ("g",)),
        Argument("y", "output", np.float32, ("m",)),
    ),
    example={"k": 64, "m": 48, "g": 5, "w": 32},
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
