"""MCSD's memory in PyTorch: the matrix, chunked and recurrent forms of what it reads, and gates.

Sizes: g = 2c memories (c slope, then c decay channels), n tokens, b sequences, w features of a
channel, q tokens of a chunk. A memory with rate r reads, at token t > 0,
    scale_t * sum over j < t of r^(t-j-1) x_j,
where scale is 1 / (1 + r + ... + r^(t-1)) for slope (an average) and r for decay; at t = 0 it
reads x_0 itself. Source: MCSD, arXiv 2406.12230 v1, eq. 1-21.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32  # 16 is as fast and 64 slower at windows of 128 and 256 on one AVX-512 core
EPS = 1e-6  # of the channel norm, on the unscaled decay state


def read_matrix(x: Tensor, log_rates: Tensor, averaged: Tensor | None = None) -> Tensor:
    """What the memories read, x (g,n,b,w) -> (g,n,b,w), as one n x n matrix each.

    log_rates (g,): logarithms of the rates, float64
    averaged (g,): which are slopes; the first half unless said
    """
    g, n, b, w = x.shape
    place = torch.arange(n, dtype=torch.float64)
    lag = place[:, None] - place - 1
    matrix = torch.exp(log_rates[:, None, None] * lag.clamp(min=0)) * (lag >= 0)
    matrix = matrix * _scale(log_rates, n, averaged)[:, :, None]
    first = torch.zeros(n, n, dtype=torch.float64)
    first[0, 0] = 1
    read = torch.bmm((matrix + first).to(x.dtype), x.reshape(g, n, b * w))
    return read.view(g, n, b, w)


def read_chunked(
    x: Tensor, log_rates: Tensor, averaged: Tensor | None = None, q: int = CHUNK
) -> Tensor:
    """The same in O(n q): a q x q matrix within chunks and a carried sum between them.

    Scale and the rule of the first token are part of the matrices, so that nothing of the size
    of x is touched but by products.
    """
    g, n, b, w = x.shape
    chunks = -(-n // q)
    if n % q:
        x = F.pad(x, (0, 0, 0, 0, 0, chunks * q - n))
    inner = x.reshape(g * chunks, q, b * w)
    within, fade, last, between = (
        m.to(x.dtype).flatten(0, 1) for m in _chunk_matrices(log_rates, averaged, chunks, q)
    )
    read = torch.bmm(within, inner)
    if chunks > 1:
        sums = torch.bmm(last, inner).view(g, chunks, b * w)
        carried = torch.bmm(between.view(g, chunks, chunks), sums).view(g * chunks, 1, b * w)
        read = torch.baddbmm(read, fade, carried)
    return read.view(g, chunks * q, b, w)[:, :n]


def _chunk_matrices(
    log_rates: Tensor, averaged: Tensor | None, chunks: int, q: int
) -> tuple[Tensor, ...]:
    """What multiplies a chunk (g,chunks,q,q), the carried sum (g,chunks,q,1), a chunk to be
    summed (g,chunks,1,q), and the sums of chunks before (g,chunks,chunks).
    """
    g = log_rates.shape[0]
    powers = torch.exp(log_rates[:, None] * torch.arange(q + 1, dtype=torch.float64))  # (g,q+1)
    place = torch.arange(q)
    lag = place[:, None] - place - 1
    causal = powers[:, lag.clamp(min=0)] * (lag >= 0)  # (g,q,q)
    scale = _scale(log_rates, chunks * q, averaged).view(g, chunks, q, 1)
    first = torch.zeros(chunks, q, q, dtype=torch.float64)
    first[0, 0, 0] = 1
    within = torch.addcmul(first, causal[:, None], scale)
    fade = powers[:, None, :q, None] * scale
    last = powers[:, None, None, :q].flip(-1).expand(g, chunks, 1, q)
    at = torch.arange(chunks, dtype=torch.float64)
    jump = at[:, None] - at - 1
    between = torch.exp(log_rates[:, None, None] * q * jump.clamp(min=0)) * (jump >= 0)
    return within, fade, last, between


def read_recurrent(x: Tensor, log_rates: Tensor) -> Tensor:
    """The same token by token with a state of one vector a memory; eq. 14-19."""
    g, n, _, _ = x.shape
    rates = torch.exp(log_rates).to(x.dtype)[:, None, None]
    slope, decay = rates[: g // 2], rates[g // 2 :]
    z = torch.zeros_like(slope)
    s, d = torch.zeros_like(x[: g // 2, 0]), torch.zeros_like(x[g // 2 :, 0])
    reads = []
    for t in range(n):
        v, e = x[: g // 2, t], x[g // 2 :, t]
        reads.append(torch.cat([v, e]) if t == 0 else torch.cat([s, d]))
        z = slope * z + 1
        s = s + (v - s) / z
        d = decay * (d + e)
    return torch.stack(reads, dim=1)


def fuse(u: Tensor, f: Tensor, read: Tensor, gain: Tensor) -> Tensor:
    """What was read (b,n,g,w), slope then decay, gated by u, f (b,n,c,w); gain (c,w); eq. 20."""
    short, long = read.chunk(2, dim=2)
    return slope(u, short) + decay(f, long, gain)


def slope(gate: Tensor, read: Tensor) -> Tensor:
    """History gates the current token; eq. 6."""
    return gate * F.silu(read)


def decay(gate: Tensor, read: Tensor, gain: Tensor) -> Tensor:
    """The current token gates history, normed over the features of a channel; eq. 12."""
    normed = read * torch.rsqrt(read.square().mean(-1, keepdim=True) + EPS)
    return torch.sigmoid(gate) * normed * gain


def mixing(
    arrays: Sequence[NDArray[np.float32]], form: str, threads: int
) -> Callable[[], NDArray[np.float32]]:
    """Mixing without projections, to be timed: a call returns y (n,c,w).

    arrays: u v f e (n,c,w), slope decay (c,), gain (c*w,); form: "chunked" or "recurrent"
    """
    read_by = {"chunked": read_chunked, "recurrent": read_recurrent}[form]
    u, v, f, e, slopes, decays, gain = (torch.from_numpy(array) for array in arrays)
    c, w = u.shape[1:]
    log_rates = torch.log(torch.cat([slopes, decays]).double())
    memories = torch.cat([v, e], dim=1).transpose(0, 1)[:, :, None]  # (g,n,1,w)

    @torch.inference_mode()
    def call() -> NDArray[np.float32]:
        read = read_by(memories, log_rates).permute(2, 1, 0, 3)
        mixed: NDArray[np.float32] = fuse(u[None], f[None], read, gain.view(c, w))[0].numpy()
        return mixed

    torch.set_num_threads(threads)
    return call


def _scale(log_rates: Tensor, n: int, averaged: Tensor | None) -> Tensor:
    """Factor of each read (g,n); 1 / Z_t for slopes (eq. 16), the rate itself for decays."""
    g = log_rates.shape[0]
    if averaged is None:
        averaged = torch.arange(g) < g // 2
    t = torch.arange(n, dtype=torch.float64).clamp(min=1)
    normaliser = torch.expm1(log_rates[:, None] * t) / torch.expm1(log_rates[:, None])
    return torch.where(averaged[:, None], 1 / normaliser, torch.exp(log_rates[:, None]))
