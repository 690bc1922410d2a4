"""Causal attention of n new tokens over a key-value cache that already holds `depth` tokens.

    y[t,h] = sum_p softmax_p(q[t,h] . K[h',p] / sqrt(w)) V[h',p],   p <= depth + t

Sizes: n tokens, h query heads, g key-value heads (h a multiple of g), w values a head, c tokens
of room in the cache. The new keys and values are appended. Cache: (g, c, w), so that one head's
past is one stream.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.maths import exp
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


@njit(**OPTIONS)
def attend(
    q: Array,
    at: int,
    keys: Array,
    values: Array,
    start: int,
    length: int,
    w: int,
    scores: Array,
    scores_at: int,
    out: Array,
    to: int,
) -> None:
    """One query q[at:at+w] over `length` rows of one head's cache, which begins at `start`."""
    whole, weight = w // LANES * LANES, scores[scores_at : scores_at + length]
    scale, top = np.float32(1.0) / np.sqrt(np.float32(w)), np.float32(-np.inf)
    for p in range(length):
        row, total = start + p * w, simd.splat_f32(np.float32(0.0))
        for i in range(0, whole, LANES):
            total = simd.fma(simd.load_f32(keys, row + i), simd.load_f32(q, at + i), total)
        score = simd.sum_f32(total)
        for i in range(whole, w):
            score += keys[row + i] * q[at + i]
        weight[p] = score * scale
        top = max(top, weight[p])
    mass = np.float32(0.0)
    for p in range(length):
        weight[p] = exp(weight[p] - top)
        mass += weight[p]
    inverse = np.float32(1.0) / mass
    wide = w // (4 * LANES) * (4 * LANES)
    for i in range(0, wide, 4 * LANES):  # four sums at once: whole lines, and no waiting on one
        a0 = a1 = a2 = a3 = simd.splat_f32(np.float32(0.0))
        for p in range(length):
            row, share = start + p * w + i, simd.splat_f32(weight[p])
            a0 = simd.fma(simd.load_f32(values, row), share, a0)
            a1 = simd.fma(simd.load_f32(values, row + LANES), share, a1)
            a2 = simd.fma(simd.load_f32(values, row + 2 * LANES), share, a2)
            a3 = simd.fma(simd.load_f32(values, row + 3 * LANES), share, a3)
        scaled = simd.splat_f32(inverse)
        simd.store_f32(out, to + i, simd.multiply(a0, scaled))
        simd.store_f32(out, to + i + LANES, simd.multiply(a1, scaled))
        simd.store_f32(out, to + i + 2 * LANES, simd.multiply(a2, scaled))
        simd.store_f32(out, to + i + 3 * LANES, simd.multiply(a3, scaled))
    for i in range(wide, whole, LANES):
        total = simd.splat_f32(np.float32(0.0))
        for p in range(length):
            total = simd.fma(
                simd.load_f32(values, start + p * w + i), simd.splat_f32(weight[p]), total
            )
        simd.store_f32(out, to + i, simd.multiply(total, simd.splat_f32(inverse)))
    for i in range(whole, w):
        rest = np.float32(0.0)
        for p in range(length):
            rest += values[start + p * w + i] * weight[p]
        out[to + i] = rest * inverse


@njit(**OPTIONS)
def append(new: Array, at: int, w: int, cache: Array, to: int) -> None:
    """Copy one head's new key or value into its row of the cache."""
    source, target = new[at : at + w], cache[to : to + w]
    for i in range(w):
        target[i] = source[i]


@njit(**OPTIONS)
def run(
    depth: Array,
    q: Array,
    k: Array,
    v: Array,
    keys: Array,
    values: Array,
    scores: Array,
    y: Array,
    first: int,
    last: int,
) -> None:
    n, h, w = q.shape
    g, c = keys.shape[0], keys.shape[1]
    flat_q, out = q.reshape(n * h * w), y.reshape(n * h * w)
    flat_k, flat_v = k.reshape(n * g * w), v.reshape(n * g * w)
    cached_k, cached_v = keys.reshape(g * c * w), values.reshape(g * c * w)
    room = scores.reshape(g * c)
    for head in range(first, last):
        start = head * c * w
        for t in range(n):
            row = start + (depth[0] + t) * w
            append(flat_k, (t * g + head) * w, w, cached_k, row)
            append(flat_v, (t * g + head) * w, w, cached_v, row)
        for t in range(n):
            for query in range(head * (h // g), (head + 1) * (h // g)):
                at = (t * h + query) * w
                length = depth[0] + t + 1
                attend(flat_q, at, cached_k, cached_v, start, length, w, room, head * c, out, at)


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    n, h, g, w, c = (sizes[name] for name in "nhgwc")
    depth = int(rng.integers(0, c - n + 1))
    arrays = [rng.standard_normal(shape) for shape in ((n, h, w), (n, g, w), (n, g, w))]
    cache = [rng.standard_normal((g, c, w)) for _ in range(2)]
    return np.array([depth]), *(a.astype(np.float32) for a in arrays + cache)


def reference(
    sizes: Sizes, depth: Array, q: Array, k: Array, v: Array, keys: Array, values: Array
) -> tuple[Array, ...]:
    import torch

    n, start = sizes["n"], int(depth[0])
    cached = [torch.from_numpy(a.copy()).double() for a in (keys, values)]
    for cache, new in zip(cached, (k, v), strict=True):
        cache[:, start : start + n] = torch.from_numpy(new).double().transpose(0, 1)
    past = [a[:, : start + n].repeat_interleave(sizes["h"] // sizes["g"], 0) for a in cached]
    seen = torch.arange(start + n)[None] <= start + torch.arange(n)[:, None]
    query = torch.from_numpy(q).double().transpose(0, 1)
    scores = query @ past[0].transpose(1, 2) / sizes["w"] ** 0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return ((weights @ past[1]).transpose(0, 1).numpy(), cached[0].numpy(), cached[1].numpy())


def cost(sizes: Sizes) -> Cost:
    """At half the room: per query and past token two dot products and 5 for the softmax.

    Moved: q and y, the new k and v read and appended, the past keys and values.
    """
    n, h, g, w, c = (sizes[name] for name in "nhgwc")
    past = (c - n) // 2
    length = past + n
    return Cost(
        operations=n * h * length * (4 * w + 5),
        moved_bytes=8 + 4 * (2 * n * h * w + 4 * n * g * w + 2 * past * g * w),
    )


def settle(sizes: Sizes) -> Sizes:
    h = -(-sizes["h"] // sizes["g"]) * sizes["g"]
    return {**sizes, "h": h, "c": max(sizes["c"], sizes["n"])}


SPEC = Kernel(
    name="attention",
    arguments=(
        Argument("depth", "input", np.int64, (1,)),
        Argument("q", "input", np.float32, ("n", "h", "w")),
        Argument("k", "input", np.float32, ("n", "g", "w")),
        Argument("v", "input", np.float32, ("n", "g", "w")),
        Argument("keys", "state", np.float32, ("g", "c", "w")),
        Argument("values", "state", np.float32, ("g", "c", "w")),
        Argument("scores", "scratch", np.float32, ("g", "c")),
        Argument("y", "output", np.float32, ("n", "h", "w")),
    ),
    example={"n": 2, "h": 4, "g": 2, "w": 32, "c": 16},
    inputs=inputs,
    items=lambda s: s["g"],
    run=run,
    reference=reference,
    cost=cost,
    rtol=1e-5,
    nan="propagates",
    source="Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 (grouped queries)",
    settle=settle,
)
