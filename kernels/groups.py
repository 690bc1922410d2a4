"""A group of neurons over the vectors that chose it, in any weight format.

They go through it together, each of its weights read once: `gather` makes its hidden values,
`scatter` adds their projection to each vector. Who chose what is the table of choice.py.

Sizes: n vectors, k inputs, m outputs, g groups, w neurons a group.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from kernels import glu, simd
from kernels.choice import span, vector, vectors
from kernels.simd import LANES, OPTIONS
from kernels.spec import Array

# While the last rows of a group's `down` are read, the next group is asked for: as many cache lines
# a step as the step reads, or it would come too late or push out what is read. 16 KB in 8 steps
# took 4 % off a token that runs a tenth of the groups (int8, groups of 128, one core of an EPYC
# 9004); the hardware finds the rest by itself.
STEPS, LINES = 8, 32
STEP_NEURONS = 128  # of a group of so many, one row block is a step


@njit(**OPTIONS)
def ask(weights: Array, at: int, lines: int) -> None:
    """Let so many cache lines come that will be read soon."""
    for line in range(lines):
        simd.prefetch(weights, at + 64 * line)


@njit(**OPTIONS)
def _side_by_side(
    activations: Array,
    at: int,
    stride: int,
    spare: int,
    n: int,
    g: int,
    table: Array,
    chosen_at: int,
    start: int,
    count: int,
) -> int:
    """Where the prepared vectors of a group follow each other, as a product wants them."""
    if n == 1:
        return at
    for i in range(count):
        t = vector(table, chosen_at, g, start + i)
        copy, whole = spare + i * stride, at + t * stride
        for byte in range(stride):
            activations[copy + byte] = activations[whole + byte]
    return spare


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
    start, count = vectors(table, chosen_at, g, chosen)
    source = _side_by_side(activations, at, stride, spare, n, g, table, chosen_at, start, count)
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
def gather_beside(
    multiply: Callable[..., None],
    weights: Array,
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
    gate: Array,
    gate_at: int,
    hidden: Array,
    to: int,
) -> None:
    """As `gather`, where the activated gates gate[gate_at:] (n, g*w) are there already.

    Uses w values a vector at hidden[to:].
    """
    first, last = span(table, chosen_at, g, w, chosen, begin, end)
    if first >= last:
        return
    start, count = vectors(table, chosen_at, g, chosen)
    source = _side_by_side(activations, at, stride, spare, n, g, table, chosen_at, start, count)
    one = to + w * start
    if following >= 0:
        ask(weights, following, STEPS * LINES)
    multiply(
        weights, up, activations, source, stride, count, k, w, first, last, hidden, one, w, False
    )
    group, length = int(table[chosen_at + chosen]), (last - first) * LANES
    for i in range(count):
        t = vector(table, chosen_at, g, start + i)
        here = one + i * w + first * LANES
        y = hidden[here : here + length]
        a = gate[gate_at + (t * g + group) * w + first * LANES :][:length]
        for r in range(length):
            y[r] *= a[r]


@njit(**OPTIONS)
def weigh(
    scores: Array,
    at: int,
    g: int,
    w: int,
    table: Array,
    chosen_at: int,
    chosen: int,
    begin: int,
    end: int,
    hidden: Array,
    to: int,
) -> None:
    """Multiply what `gather` made of units begin..end by each vector's score of the group."""
    first, last = span(table, chosen_at, g, w, chosen, begin, end)
    start, count = vectors(table, chosen_at, g, chosen)
    for i in range(count if first < last else 0):
        t = vector(table, chosen_at, g, start + i)
        factor = scores[at + t * g + int(table[chosen_at + chosen])]
        here = to + 2 * w * start + i * w
        y = hidden[here + first * LANES : here + last * LANES]
        for r in range(y.size):
            y[r] *= factor


@njit(**OPTIONS)
def scatter(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    weights: Array,
    down: int,
    following: int,
    hidden: Array,
    at: int,
    room: int,
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

    down: byte where its weights start; following: as in `gather`; room: values a vector has in
    hidden[at:]. activations[spare:] holds `stride` bytes a vector and sums[sums_at:] (n,m) values
    of scratch.
    """
    start, count = vectors(table, chosen_at, g, chosen)
    one = at + room * start
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
        t = vector(table, chosen_at, g, start + i)
        y = out[to + t * m + begin : to + t * m + begin + length]
        s = sums[sums_at + i * m + begin : sums_at + i * m + begin + length]
        for r in range(length):
            y[r] += s[r]
