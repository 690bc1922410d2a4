"""Gated ffn over the chosen groups of neurons only: y = sum_g down_g (silu(gate_g x) * up_g x).

A group is `w` neighbouring neurons (a multiple of sixteen); it runs for a vector when that vector's
score of it is above zero. What is not chosen by any vector is not read.

Sizes: n vectors, k inputs, m outputs, g groups, w neurons a group. Memory is fast where it is read
in order, and every jump costs about a microsecond, so that all weights of a group are one record:

    record 0 (group 0)                                        record 1 ...
    | gate (w,k) | up (w,k) | down (m,w): each a stream of the format, padded to 64 B |

Vectors that chose a group go through it together, each of its weights read once. Who runs what is
a table of whole numbers kept as float32 (exact below 2^24), because scratch has one element type:

    | groups that run (g) | where their vectors begin (g+1) | vectors of the first, of the second...

`gather` and `scatter` work in any weight format: they take its `prepare` and `multiply`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from kernels import glu, matmul_f32, matvec_f32, simd
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

# While the last rows of a group's `down` are read, the next group is asked for: as many cache lines
# a step as the step reads, or it would come too late or push out what is read. 16 KB in 8 steps
# took 4 % off a token that runs a tenth of the groups (int8, groups of 128, one core of an EPYC
# 9004); the hardware finds the rest by itself.
STEPS, LINES = 8, 32
STEP_NEURONS = 128  # of a group of so many, one row block is a step


@njit(**OPTIONS)
def table_size(n: int, g: int) -> int:
    return 2 * g + 1 + n * g


@njit(**OPTIONS)
def choose(scores: Array, at: int, n: int, g: int, table: Array, to: int) -> int:
    """Write the table of scores[at:] (n,g) to table[to:]; returns how many groups run."""
    starts, vectors = to + g, to + 2 * g + 1
    count = total = 0
    table[starts] = 0
    for j in range(g):
        before = total
        for t in range(n):
            table[vectors + total] = t  # stays only if the next line counts it
            total += 1 if scores[at + t * g + j] > np.float32(0.0) else 0
        if total > before:
            table[to + count] = j
            count += 1
            table[starts + count] = total
    return count


@njit(**OPTIONS)
def units(table: Array, at: int, g: int, count: int, w: int) -> int:
    """Row blocks times vectors of all that runs: what threads share in `gather`."""
    return int(table[at + g + count]) * (w // LANES)


@njit(**OPTIONS)
def span(
    table: Array, at: int, g: int, w: int, chosen: int, begin: int, end: int
) -> tuple[int, int]:
    """Row blocks first..last of the `chosen`-th group that runs, which units begin..end hold."""
    start, blocks = int(table[at + g + chosen]), w // LANES
    count = int(table[at + g + chosen + 1]) - start
    first = min(max(begin - start * blocks, 0) // count, blocks)
    return first, min(max(end - start * blocks, 0) // count, blocks)


@njit(**OPTIONS)
def ask(weights: Array, at: int, lines: int) -> None:
    """Let so many cache lines come that will be read soon."""
    for line in range(lines):
        simd.prefetch(weights, at + 64 * line)


@njit(**OPTIONS)
def gather(
    multiply: Callable[..., None],
    weights: Array,
    gate: int,
    up: int,
    activations: Array,
    at: int,
    stride: int,
    spare: int,
    n: int,
    k: int,
    g: int,
    w: int,
    table: Array,
    chosen_at: int,
    chosen: int,
    begin: int,
    end: int,
    following: int,
    hidden: Array,
    to: int,
) -> None:
    """Hidden values of the `chosen`-th group that runs, of units begin..end of all of them.

    gate, up: bytes where its weights start; following: where this thread reads next, or -1 when it
    just goes on. activations: n prepared vectors at `at`, `stride` bytes
    apart; n * stride bytes at `spare` are scratch. Uses 2 w values a vector at hidden[to:].
    """
    first, last = span(table, chosen_at, g, w, chosen, begin, end)
    if first >= last:
        return
    start = int(table[chosen_at + g + chosen])
    count = int(table[chosen_at + g + chosen + 1]) - start
    source = at
    if n > 1:  # the product wants its vectors side by side
        source = spare
        for i in range(count):
            t = int(table[chosen_at + 2 * g + 1 + start + i])
            copy, whole = spare + i * stride, at + t * stride
            for byte in range(stride):
                activations[copy + byte] = activations[whole + byte]
    one = to + 2 * w * start
    two = one + count * w
    multiply(
        weights, gate, activations, source, stride, count, k, w, first, last, hidden, one, w, False
    )
    if following >= 0:
        ask(weights, following, STEPS * LINES)
    multiply(
        weights, up, activations, source, stride, count, k, w, first, last, hidden, two, w, False
    )
    for i in range(count):
        here, length = one + i * w + first * LANES, (last - first) * LANES
        glu.combine(hidden, here, hidden, here + count * w, length, hidden, here)


@njit(**OPTIONS)
def scatter(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    weights: Array,
    down: int,
    following: int,
    hidden: Array,
    at: int,
    activations: Array,
    spare: int,
    stride: int,
    n: int,
    g: int,
    w: int,
    m: int,
    table: Array,
    chosen_at: int,
    chosen: int,
    first: int,
    last: int,
    sums: Array,
    sums_at: int,
    out: Array,
    to: int,
) -> None:
    """Add row blocks first..last of the down projection of that group to out[to:] (n,m).

    down: byte where its weights start; following: as in `gather`.
    activations[spare:] holds `stride` bytes a vector and sums[sums_at:] (n,m) values of scratch.
    """
    start = int(table[chosen_at + g + chosen])
    count = int(table[chosen_at + g + chosen + 1]) - start
    one = at + 2 * w * start
    for i in range(count):
        prepare(hidden, one + i * w, w, activations, spare + i * stride)
    if n == 1:
        step = max(1, STEP_NEURONS // w)
        near = max(first, last - STEPS * step) if following >= 0 else last
        multiply(weights, down, activations, spare, stride, 1, w, m, first, near, out, to, m, True)
        for b in range(near, last, step):
            ask(weights, following + 64 * LINES * ((b - near) // step), LINES)
            multiply(
                weights, down, activations, spare, stride, 1, w, m, b, min(b + step, last),
                out, to, m, True,
            )  # fmt: skip
        return
    multiply(
        weights, down, activations, spare, stride, count, w, m, first, last, sums, sums_at, m, False
    )
    begin, length = first * LANES, min(last * LANES, m) - first * LANES
    for i in range(count):
        t = int(table[chosen_at + 2 * g + 1 + start + i])
        y = out[to + t * m + begin : to + t * m + begin + length]
        s = sums[sums_at + i * m + begin : sums_at + i * m + begin + length]
        for r in range(length):
            y[r] += s[r]


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
    count = choose(scores.reshape(n * g), 0, n, g, table, 0)
    everything = units(table, 0, g, count, w)
    for c in range(count):
        record = int(table[c]) * pitch
        following = int(table[c + 1]) * pitch if c + 1 < count else -1
        gather(
            matmul_f32.multiply, weights, record, record + up, activations, 0, stride, n * stride,
            n, k, g, w, table, 0, c, 0, everything, -1, hidden, 0,
        )  # fmt: skip
        scatter(
            matmul_f32.prepare, matmul_f32.multiply, weights, record + down, following, hidden, 0,
            activations, 2 * n * stride, 4 * w, n, g, w, m, table, 0, c, first, last, sums, 0,
            out, 0,
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
        Argument("table", "scratch", np.float32, (lambda s: table_size(s["n"], s["g"]),)),
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
