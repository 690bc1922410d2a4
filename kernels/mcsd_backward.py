"""Gradients of MCSD mixing: what a change of each input would change, given that of the output.

The recurrences of mcsd.py run backwards. With the unnormalised sum N_t = z_t V'_t, a = slope,
b = decay, and g' the gradient of what is read at t (through the gates and the channel norm):

    gN_t = g'V_t / z_t + a gN_(t+1);    dV_t = gN_(t+1);    dE_t = b gD_(t+1)
    gD_t = g'E_t + b gD_(t+1);          at t = 0, what is read is V_0 and E_0 itself
    da = sum_t gN_(t+1) N_t - g'V_t V'_t / z_t dz_t/da;    db = sum_t gD_(t+1) (D_t + E_t)

Sizes: n tokens, c channels, w values a channel. A text begins at its first token: no state enters.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import mcsd
from kernels.maths import sigmoid
from kernels.mcsd import EPSILON
from kernels.simd import OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

ZERO, ONE = np.float32(0.0), np.float32(1.0)
SPARE = 11  # values a feature that a call keeps between its tokens


@njit(**OPTIONS)
def spread(values: Array, w: int, out: Array) -> None:
    """One value a channel, repeated for each of its features: loops then run over all of them."""
    for k in range(len(values)):
        out[k * w : k * w + w] = values[k]


@njit(**OPTIONS)
def channel_dots(x: Array, y: Array, w: int, out: Array) -> None:
    """The sum of x * y over each channel's w features."""
    for k in range(len(out)):
        p, q, total = x[k * w : k * w + w], y[k * w : k * w + w], ZERO
        for i in range(w):
            total += p[i] * q[i]
        out[k] = total


@njit(**OPTIONS)
def average(short: Array, v: Array, blend: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] = short[i] + (v[i] - short[i]) * blend[i]


@njit(**OPTIONS)
def decayed_sum(long: Array, e: Array, b: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] = b[i] * (long[i] + e[i])


@njit(**OPTIONS)
def slope_gate(short: Array, u: Array, g: Array, du: Array, to_short: Array) -> None:
    """Back through u * silu(short)."""
    for i in range(len(g)):
        s = short[i]
        opened = sigmoid(s)
        du[i] = g[i] * s * opened
        to_short[i] = g[i] * u[i] * opened * (ONE + s * (ONE - opened))


@njit(**OPTIONS)
def decay_gate(
    f: Array, normed: Array, gain: Array, g: Array, df: Array, to_normed: Array, dgain: Array
) -> None:
    """Back through sigmoid(f) * gain * normed."""
    for i in range(len(g)):
        to_normed[i] = sigmoid(f[i])
    for i in range(len(g)):
        dgain[i] += g[i] * to_normed[i] * normed[i]
    for i in range(len(g)):
        df[i] = g[i] * gain[i] * to_normed[i] * normed[i] * (ONE - to_normed[i])
    for i in range(len(g)):
        to_normed[i] *= g[i] * gain[i]


@njit(**OPTIONS)
def read(
    v: Array, e: Array, pitch: int, n: int, w: int, a: Array, b: Array, blend: Array,
    short: Array, long: Array, weight: Array, growth: Array,
) -> None:  # fmt: skip
    """What each feature reads at each token, short and long (n,features); z, dz/da (n,channels).

    a (channels,); b and blend, which is scratch, (features,)
    """
    features, channels = short.shape[1], weight.shape[1]
    short[0], long[0] = v[:features], e[:features]
    weight[0], growth[0] = ONE, ZERO
    for t in range(1, n):
        past = (t - 1) * pitch
        if t == 1:  # the first token enters the sums, whatever it read itself
            weight[1], growth[1] = ONE, ZERO
            short[1] = v[:features]
            for i in range(features):
                long[1, i] = b[i] * e[i]
            continue
        for k in range(channels):
            weight[t, k] = a[k] * weight[t - 1, k] + ONE
            growth[t, k] = a[k] * growth[t - 1, k] + weight[t - 1, k]
            blend[k * w : k * w + w] = ONE / weight[t, k]
        average(short[t - 1], v[past : past + features], blend, short[t])
        decayed_sum(long[t - 1], e[past : past + features], b, long[t])


@njit(**OPTIONS)
def backward(
    u: Array, v: Array, f: Array, e: Array, pitch: int, n: int, w: int,
    slope: Array, decay: Array, gain: Array, g: Array, g_pitch: int,
    short: Array, long: Array, weight: Array, growth: Array, spare: Array,
    du: Array, dv: Array, df: Array, de: Array, dslope: Array, ddecay: Array, dgain: Array,
) -> None:  # fmt: skip
    """Gradients for as many channels as slope has; those of slope, decay and gain are added to.

    Token t is at t * pitch in u v f e and their gradients, at t * g_pitch in g. Scratch: short,
    long (n,features), weight, growth (n,channels), spare (SPARE,features)
    """
    features, channels = short.shape[1], weight.shape[1]
    a, b, blend, inverse = spare[0], spare[1], spare[2], spare[3]
    sums, decayed, normed, to_short = spare[4], spare[5], spare[6], spare[7]
    to_long, later, dots = spare[8], spare[9], spare[10][:channels]
    spread(slope, w, a)
    spread(decay, w, b)
    read(v, e, pitch, n, w, slope, b, blend, short, long, weight, growth)
    sums[:], decayed[:] = ZERO, ZERO
    for t in range(n - 1, -1, -1):
        row, last = t * pitch, t * pitch + features
        given = g[t * g_pitch : t * g_pitch + features]
        slope_gate(short[t], u[row:last], given, du[row:last], to_short)
        channel_dots(long[t], long[t], w, dots)
        for k in range(channels):
            mean = dots[k] / np.float32(w)
            inverse[k * w : k * w + w] = ONE / np.sqrt(mean + np.float32(EPSILON))
        for i in range(features):
            normed[i] = long[t, i] * inverse[i]
        decay_gate(f[row:last], normed, gain, given, df[row:last], to_long, dgain)
        channel_dots(to_long, normed, w, dots)
        for k in range(channels):
            later[k * w : k * w + w] = dots[k] / np.float32(w)
        for i in range(features):
            to_long[i] = inverse[i] * (to_long[i] - normed[i] * later[i])
        if t == 0:  # what was read is the token itself
            channel_dots(decayed, e[:features], w, dots)
            for k in range(channels):
                ddecay[k] += dots[k]
            for i in range(features):
                dv[i] = to_short[i] + sums[i]
            for i in range(features):
                de[i] = to_long[i] + b[i] * decayed[i]
            continue
        channel_dots(sums, short[t], w, dots)
        for k in range(channels):
            dslope[k] += dots[k] * weight[t, k]
        channel_dots(to_short, short[t], w, dots)
        for k in range(channels):
            dslope[k] -= dots[k] * growth[t, k] / weight[t, k]
            blend[k * w : k * w + w] = ONE / weight[t, k]
        entered = e[row:last]
        for i in range(features):
            later[i] = long[t, i] + entered[i]
        channel_dots(decayed, later, w, dots)
        for k in range(channels):
            ddecay[k] += dots[k]
        dv[row:last] = sums
        back(to_short, blend, a, sums)
        to_entry = de[row:last]
        for i in range(features):
            to_entry[i] = b[i] * decayed[i]
        for i in range(features):
            decayed[i] = to_long[i] + to_entry[i]


@njit(**OPTIONS)
def back(to_short: Array, blend: Array, a: Array, sums: Array) -> None:
    for i in range(len(sums)):
        sums[i] = to_short[i] * blend[i] + a[i] * sums[i]


@njit(**OPTIONS)
def run(
    u: Array, v: Array, f: Array, e: Array, slope: Array, decay: Array, gain: Array, g: Array,
    short: Array, long: Array, weight: Array, growth: Array, spare: Array,
    du: Array, dv: Array, df: Array, de: Array, dslope: Array, ddecay: Array, dgain: Array,
    first: int, last: int,
) -> None:  # fmt: skip
    n, c, w = u.shape
    size, begin, end = n * c * w, first * w, last * w
    if first == last:
        return
    dslope[first:last], ddecay[first:last], dgain[begin:end] = ZERO, ZERO, ZERO
    # scratch of a part is its own: the first n tokens' worth of so many features
    part = end - begin
    backward(
        u.reshape(size)[begin:], v.reshape(size)[begin:], f.reshape(size)[begin:],
        e.reshape(size)[begin:], c * w, n, w,
        slope[first:last], decay[first:last], gain[begin:end], g.reshape(size)[begin:], c * w,
        short[n * begin : n * end].reshape((n, part)), long[n * begin : n * end].reshape((n, part)),
        weight[n * first : n * last].reshape((n, last - first)),
        growth[n * first : n * last].reshape((n, last - first)),
        spare[SPARE * begin : SPARE * end].reshape((SPARE, part)),
        du.reshape(size)[begin:], dv.reshape(size)[begin:], df.reshape(size)[begin:],
        de.reshape(size)[begin:], dslope[first:last], ddecay[first:last], dgain[begin:end],
    )  # fmt: skip


def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
    """As mcsd's, from no state, and a gradient of the output."""
    *given, _ = mcsd.inputs(sizes, rng)
    return (*given, rng.standard_normal(given[0].shape).astype(np.float32))


def reference(
    sizes: Sizes, u: Array, v: Array, f: Array, e: Array,
    slope: Array, decay: Array, gain: Array, g: Array,
) -> tuple[Array, ...]:  # fmt: skip
    """PyTorch's own gradients of the published form: one matrix of weights a channel (eq. 3-11)."""
    import torch

    n, c, w = sizes["n"], sizes["c"], sizes["w"]
    given = [torch.from_numpy(x).double().requires_grad_() for x in (u, v, f, e)]
    constants = [torch.from_numpy(x).double().requires_grad_() for x in (slope, decay, gain)]
    (U, V, F, E), (a, b, gamma) = given, constants
    lag = (torch.arange(n)[:, None] - torch.arange(n)).double()
    past = lag > 0
    short = torch.where(past, a[:, None, None] ** (lag - 1).clamp(min=0), 0.0)
    short = short / short.sum(-1, keepdim=True).clamp(min=1e-300)
    long = torch.where(past, b[:, None, None] ** lag.clamp(min=0), 0.0)
    first = torch.zeros(n, n).double()
    first[0, 0] = 1
    Vp = torch.einsum("ctj,jcw->tcw", short + first, V)
    Ep = torch.einsum("ctj,jcw->tcw", long + first, E)
    norm = Ep * torch.rsqrt(Ep.square().mean(-1, keepdim=True) + EPSILON)
    y = U * torch.nn.functional.silu(Vp) + F.sigmoid() * norm * gamma.view(c, w)
    found = torch.autograd.grad(
        y, [*given, *constants], torch.from_numpy(g).double(), materialize_grads=True
    )
    return tuple(grad.numpy() for grad in found)


def cost(sizes: Sizes) -> Cost:
    """Per value: 8 to read again, 2 gates of 6 and 30 products and sums.

    Moved: u v f e g and four gradients, what is read kept in between, the constants.
    """
    n, c, w = sizes["n"], sizes["c"], sizes["w"]
    return Cost(
        operations=50 * n * c * w,
        moved_bytes=4 * (9 * n * c * w + 4 * c + 2 * c * w),
    )


SPEC = Kernel(
    name="mcsd_backward",
    arguments=(
        *(Argument(name, "input", np.float32, ("n", "c", "w")) for name in "uvfe"),
        Argument("slope", "input", np.float32, ("c",)),
        Argument("decay", "input", np.float32, ("c",)),
        Argument("gain", "input", np.float32, (lambda s: s["c"] * s["w"],)),
        Argument("g", "input", np.float32, ("n", "c", "w")),
        Argument("short", "scratch", np.float32, (lambda s: s["n"] * s["c"] * s["w"],)),
        Argument("long", "scratch", np.float32, (lambda s: s["n"] * s["c"] * s["w"],)),
        Argument("weight", "scratch", np.float32, (lambda s: s["n"] * s["c"],)),
        Argument("growth", "scratch", np.float32, (lambda s: s["n"] * s["c"],)),
        Argument("spare", "scratch", np.float32, (lambda s: SPARE * s["c"] * s["w"],)),
        *(Argument(f"d{name}", "output", np.float32, ("n", "c", "w")) for name in "uvfe"),
        Argument("dslope", "output", np.float32, ("c",)),
        Argument("ddecay", "output", np.float32, ("c",)),
        Argument("dgain", "output", np.float32, (lambda s: s["c"] * s["w"],)),
    ),
    example={"n": 5, "c": 3, "w": 16},
    inputs=inputs,
    items=lambda s: s["c"],
    run=run,
    reference=reference,
    cost=cost,
    rtol=2e-5,
    nan="propagates",
    source="MCSD, arXiv 2406.12230 v1, eq. 2-21, differentiated",
)
