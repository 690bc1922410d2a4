"""MCSD mixing of n tokens: a normalised short average and a long decaying sum, each gated.

Per channel, with a = slope, b = decay and state z, s, d of the tokens before t:

    V' = V if t is the first token, else s;   E' = E if t is the first token, else d
    y = U * silu(V') + sigmoid(F) * gain * E' / sqrt(mean(E'^2) + 1e-6)
    z = a z + 1;   s += (V - s) / z;   d = b (d + E)

Sizes: n tokens, c channels, w values a channel. The state is that of the tokens so far and
starts at 0; z = 0 says that there were none. `run` is the recurrent form, for prompts as for
single tokens; `reference` is the published form, one matrix over the whole text; the form by
chunks, which training uses, is in harness/mixers/mcsd/reference.py.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.maths import sigmoid, sigmoid_lanes, silu
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

EPSILON = 1e-6


@njit(**OPTIONS)
def step(
    u: Array,
    v: Array,
    f: Array,
    e: Array,
    at: int,
    w: int,
    a: np.float32,
    b: np.float32,
    z: np.float32,
    gain: Array,
    gain_at: int,
    state: Array,
    s_at: int,
    d_at: int,
    out: Array,
    to: int,
) -> np.float32:
    """One token of one channel; updates s and d in `state` and returns the new z."""
    short, long = state[s_at : s_at + w], state[d_at : d_at + w]
    value, entry = v[at : at + w], e[at : at + w]
    forget, current, y = f[at : at + w], u[at : at + w], out[to : to + w]
    scale = gain[gain_at : gain_at + w]
    first, squares = z == np.float32(0.0), np.float32(0.0)
    past, sums = (value, entry) if first else (short, long)
    for i in range(w):
        squares += sums[i] * sums[i]
    inverse = np.float32(1.0) / np.sqrt(squares / np.float32(w) + np.float32(EPSILON))
    z = a * z + np.float32(1.0)
    blend = np.float32(1.0) / z
    whole = w // LANES * LANES
    decayed, blended = simd.splat_f32(b), simd.splat_f32(blend)
    minus, scaled = simd.splat_f32(np.float32(-1.0)), simd.splat_f32(inverse)
    for i in range(0, whole, LANES):
        new, old = simd.load_f32(value, i), simd.load_f32(short, i)
        entered, sum_ = simd.load_f32(entry, i), simd.load_f32(long, i)
        before, total = simd.load_f32(past, i), simd.load_f32(sums, i)
        gate = simd.multiply(simd.load_f32(current, i), before)
        slope = simd.multiply(gate, sigmoid_lanes(before))
        normed = simd.multiply(simd.multiply(total, scaled), simd.load_f32(scale, i))
        opened = sigmoid_lanes(simd.load_f32(forget, i))
        simd.store_f32(y, i, simd.fma(opened, normed, slope))
        simd.store_f32(short, i, simd.fma(simd.fma(old, minus, new), blended, old))
        simd.store_f32(long, i, simd.multiply(decayed, simd.add(sum_, entered)))
    for i in range(whole, w):
        y[i] = current[i] * silu(past[i]) + sigmoid(forget[i]) * sums[i] * inverse * scale[i]
        short[i] += (value[i] - short[i]) * blend
        long[i] = b * (long[i] + entry[i])
    return z


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
    width = c * w
    fu, fv, ff, fe = (
        u.reshape(n * width),
        v.reshape(n * width),
        f.reshape(n * width),
        e.reshape(n * width),
    )
    out = y.reshape(n * width)
    for t in range(n):
        for channel in range(first, last):
            at, here = t * width + channel * w, channel * w
            state[2 * width + channel] = step(
                fu, fv, ff, fe, at, w, slope[channel], decay[channel], state[2 * width + channel],
                gain, here, state, here, width + here, out, at,
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
