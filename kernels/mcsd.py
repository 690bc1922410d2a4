"""MCSD mixing of n tokens: a normalised short average and a long decaying sum, each gated.

Per channel, with a = slope, b = decay and state z, s, d of the tokens before t:

    V' = V if t is the first token, else s;   E' = E if t is the first token, else d
    y = U * silu(V') + sigmoid(F) * gain * E' / sqrt(mean(E'^2) + 1e-6)
    z = a z + 1;   s += (V - s) / z;   d = b (d + E)

Sizes: n tokens, c channels, w values a channel. The state is that of the tokens so far and
starts at 0; z = 0 says that there were none. `run` is the recurrent form, for prompts as for
single tokens; `reference` is the published form, one matrix over the whole text; the form by
chunks, which training uses, is in harness/mixers/mcsd/memory.py.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.maths import one_plus_exp, sigmoid, silu
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

EPSILON = 1e-6


@njit(**OPTIONS)
def inverse_norm(d: Array, at: int, w: int) -> np.float32:
    """1 / sqrt(mean(d^2) + EPSILON) of the w values at `at`."""
    whole = w // LANES * LANES
    total = simd.splat_f32(np.float32(0.0))
    for i in range(at, at + whole, LANES):
        value = simd.load_f32(d, i)
        total = simd.fma(value, value, total)
    squares = simd.sum_f32(total)
    for i in range(at + whole, at + w):
        squares += d[i] * d[i]
    return np.float32(1.0) / np.sqrt(squares / np.float32(w) + np.float32(EPSILON))


@njit(**OPTIONS)
def scan(
    u: Array,
    v: Array,
    f: Array,
    e: Array,
    pitch: int,
    n: int,
    c: int,
    w: int,
    first: int,
    last: int,
    slope: Array,
    decay: Array,
    gain: Array,
    state: Array,
    y: Array,
    y_pitch: int,
) -> None:
    """n tokens of channels first..last; token t is at t * pitch in u v f e, at t * y_pitch in y.

    y may be u, at the same pitch.

    Token by token, because rows are contiguous: the memory then streams, and s and d of all
    channels stay in the first cache.
    """
    width = c * w
    s, d, counts = state[:width], state[width : 2 * width], state[2 * width : 2 * width + c]
    # Threads that count side by side in one cache line would take it from each other each token.
    z = counts if n == 1 else counts.copy()
    one = simd.splat_f32(np.float32(1.0))
    for t in range(n):
        row, to = t * pitch, t * y_pitch
        ahead = inverse_norm(d, first * w, w)
        for channel in range(first, last):
            here, inverse, b = channel * w, ahead, decay[channel]
            kept = b
            if z[channel] == np.float32(0.0):
                # the first token reads itself, and is then no part of the sum of earlier ones
                for i in range(here, here + w):
                    s[i], d[i] = v[row + i], e[row + i]
                inverse, kept = inverse_norm(d, here, w), np.float32(0.0)
            if channel + 1 < last:
                # the gates below do not wait for it: a sum, a root and a division take long
                ahead = inverse_norm(d, here + w, w)
            z[channel] = slope[channel] * z[channel] + np.float32(1.0)
            blend = np.float32(1.0) / z[channel]
            scale, blending = simd.splat_f32(inverse), simd.splat_f32(blend)
            entering, keeping = simd.splat_f32(b), simd.splat_f32(kept)
            whole = here + w // LANES * LANES
            for i in range(here, whole, LANES):
                short, long = simd.load_f32(s, i), simd.load_f32(d, i)
                # 1 / (p q) gives 1 / p and 1 / q for one division
                p, q = one_plus_exp(short), one_plus_exp(simd.load_f32(f, row + i))
                both = simd.divide(one, simd.multiply(p, q))
                current = simd.multiply(simd.load_f32(u, row + i), short)
                normed = simd.multiply(simd.multiply(long, scale), simd.load_f32(gain, i))
                value, entry = simd.load_f32(v, row + i), simd.load_f32(e, row + i)
                gated = simd.multiply(current, simd.multiply(both, q))
                simd.store_f32(y, to + i, simd.fma(simd.multiply(both, p), normed, gated))
                simd.store_f32(s, i, simd.fma(simd.subtract(value, short), blending, short))
                simd.store_f32(d, i, simd.fma(long, keeping, simd.multiply(entry, entering)))
            for i in range(whole, here + w):
                normed = d[i] * inverse * gain[i]
                y[to + i] = u[row + i] * silu(s[i]) + sigmoid(f[row + i]) * normed
                s[i] += (v[row + i] - s[i]) * blend
                d[i] = kept * d[i] + b * e[row + i]
    counts[first:last] = z[first:last]


@njit(**OPTIONS)
def run(
    u: Array,
    v: Array,
    f: Array,
    e: Array,
    slope: Array,
    decay: Array,
    gain: Array,
    state: Array,
    y: Array,
    first: int,
    last: int,
) -> None:
    """The recurrence. `state` holds s (c*w), d (c*w), z (c)."""
    n, c, w = u.shape
    size = n * c * w
    scan(
        u.reshape(size), v.reshape(size), f.reshape(size), e.reshape(size), c * w, n, c, w,
        first, last, slope, decay, gain, state, y.reshape(size), c * w,
    )  # fmt: skip


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    """Decays span the paper's range; the state is that of 0 to 40 earlier random tokens."""
    n, c, w = sizes["n"], sizes["c"], sizes["w"]
    arrays = [rng.standard_normal((n, c, w)) for _ in range(4)]
    slope, decay = rng.uniform(0.3, 0.99, c), rng.uniform(0.9, 0.9999, c)
    state = np.zeros(2 * c * w + c)
    for _ in range(int(rng.integers(0, 40))):
        state[2 * c * w :] = slope * state[2 * c * w :] + 1
        blend = np.repeat(1 / state[2 * c * w :], w)
        state[: c * w] += (rng.standard_normal(c * w) - state[: c * w]) * blend
        entry = rng.standard_normal(c * w)
        state[c * w : 2 * c * w] = np.repeat(decay, w) * (state[c * w : 2 * c * w] + entry)
    gain = rng.uniform(0.5, 1.5, c * w)
    return tuple(a.astype(np.float32) for a in (*arrays, slope, decay, gain, state))


def reference(
    sizes: Sizes,
    u: Array,
    v: Array,
    f: Array,
    e: Array,
    slope: Array,
    decay: Array,
    gain: Array,
    state: Array,
) -> tuple[Array, ...]:
    """Decay-weighted sums over all earlier tokens as one matrix product a channel (eq. 3-11)."""
    import torch

    n, c, w = sizes["n"], sizes["c"], sizes["w"]
    U, V, F, E = (torch.from_numpy(x).double() for x in (u, v, f, e))
    a, b = torch.from_numpy(slope).double(), torch.from_numpy(decay).double()
    past = torch.from_numpy(state).double()
    s, d, z = past[: c * w].view(c, w), past[c * w : 2 * c * w].view(c, w), past[2 * c * w :]
    steps = torch.arange(n + 1).double()
    lag = steps[:, None] - steps[None, :n]  # row t: lag to token j; n rows of output, one of state
    short = torch.where(lag > 0, a[:, None, None] ** (lag - 1).clamp(min=0), 0.0)  # (c, n+1, n)
    long = torch.where(lag > 0, b[:, None, None] ** lag.clamp(min=0), 0.0)
    weight = short.sum(-1) + a[:, None] ** steps * z[:, None]  # (c, n+1): z after t tokens
    sums = torch.einsum("ctj,jcw->tcw", short, V) + torch.einsum(
        "ct,c,cw->tcw", a[:, None] ** steps, z, s
    )
    average = sums / weight.T[..., None].clamp(min=1e-300)
    decayed = torch.einsum("ctj,jcw->tcw", long, E) + (b[:, None] ** steps).T[..., None] * d
    Vp, Ep = average[:n].clone(), decayed[:n].clone()
    fresh = z == 0
    Vp[0, fresh], Ep[0, fresh] = V[0, fresh], E[0, fresh]
    norm = Ep * torch.rsqrt(Ep.square().mean(-1, keepdim=True) + EPSILON)
    y = U * torch.nn.functional.silu(Vp) + F.sigmoid() * norm * torch.from_numpy(gain).view(c, w)
    new = torch.cat([average[n].flatten(), decayed[n].flatten(), weight[:, n]])
    return y.numpy(), new.numpy()


def cost(sizes: Sizes) -> Cost:
    """Per value: 2 for squares, 2 gates of 6, 6 products and sums, 7 for the state.

    Moved: u v f e y, the constants, the state twice.
    """
    n, c, w = sizes["n"], sizes["c"], sizes["w"]
    return Cost(
        operations=27 * n * c * w,
        moved_bytes=4 * (5 * n * c * w + 2 * (2 * c * w + c) + 2 * c + c * w),
    )


SPEC = Kernel(
    name="mcsd",
    arguments=(
        *(Argument(name, "input", np.float32, ("n", "c", "w")) for name in "uvfe"),
        Argument("slope", "input", np.float32, ("c",)),
        Argument("decay", "input", np.float32, ("c",)),
        Argument("gain", "input", np.float32, (lambda s: s["c"] * s["w"],)),
        Argument("state", "state", np.float32, (lambda s: (2 * s["w"] + 1) * s["c"],)),
        Argument("y", "output", np.float32, ("n", "c", "w")),
    ),
    example={"n": 5, "c": 3, "w": 16},
    inputs=inputs,
    items=lambda s: s["c"],
    run=run,
    reference=reference,
    cost=cost,
    rtol=2e-5,
    nan="propagates",
    source="MCSD, arXiv 2406.12230 v1, eq. 2-21",
)
