"""MCSD in PyTorch: a layer to train, and the matrix, chunked and recurrent forms of its memory.

Sizes: g = 2c memories (c slope, then c decay channels), n tokens, b sequences, w features of a
channel, q tokens of a chunk. A memory with rate r reads, at token t > 0,
    scale_t * sum over j < t of r^(t-j-1) x_j,
where scale is 1 / (1 + r + ... + r^(t-1)) for slope (an average) and r for decay; at t = 0 it
reads x_0 itself. Source: MCSD, arXiv 2406.12230 v1, eq. 1-21.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harness.autograd import linear
from harness.mixers.mcsd.gradient import mixed
from harness.records import Shape

CHUNK = 32  # 16 is as fast and 64 slower at windows of 128 and 256 on one AVX-512 core
EPS = 1e-6  # of the channel norm, on the unscaled decay state


def paper_slopes(channels: int) -> NDArray[np.float64]:
    """exp(-beta_i), beta_i = (2^(-8/C))^(i+1); eq. 2."""
    betas = 2.0 ** (-8.0 / channels * np.arange(1, channels + 1))
    return np.asarray(np.exp(-betas), np.float64)


def paper_decays(channels: int) -> NDArray[np.float64]:
    """1 - 2^(-5-i); eq. 8."""
    return np.asarray(1.0 - 2.0 ** (-5.0 - np.arange(channels)), np.float64)


def read_matrix(x: Tensor, log_rates: Tensor) -> Tensor:
    """What the memories read, x (g,n,b,w) -> (g,n,b,w), as one n x n matrix each.

    log_rates (g,): logarithms of the rates, float64
    """
    g, n, b, w = x.shape
    place = torch.arange(n, dtype=torch.float64)
    lag = place[:, None] - place - 1
    matrix = torch.exp(log_rates[:, None, None] * lag.clamp(min=0)) * (lag >= 0)
    matrix = matrix * _scale(log_rates, n)[:, :, None]
    first = torch.zeros(n, n, dtype=torch.float64)
    first[0, 0] = 1
    read = torch.bmm((matrix + first).to(x.dtype), x.reshape(g, n, b * w))
    return read.view(g, n, b, w)


def read_chunked(x: Tensor, log_rates: Tensor, q: int = CHUNK) -> Tensor:
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
        m.to(x.dtype).flatten(0, 1) for m in _chunk_matrices(log_rates, chunks, q)
    )
    read = torch.bmm(within, inner)
    if chunks > 1:
        sums = torch.bmm(last, inner).view(g, chunks, b * w)
        carried = torch.bmm(between.view(g, chunks, chunks), sums).view(g * chunks, 1, b * w)
        read = torch.baddbmm(read, fade, carried)
    return read.view(g, chunks * q, b, w)[:, :n]


def _chunk_matrices(log_rates: Tensor, chunks: int, q: int) -> tuple[Tensor, ...]:
    """What multiplies a chunk (g,chunks,q,q), the carried sum (g,chunks,q,1), a chunk to be
    summed (g,chunks,1,q), and the sums of chunks before (g,chunks,chunks).
    """
    g = log_rates.shape[0]
    powers = torch.exp(log_rates[:, None] * torch.arange(q + 1, dtype=torch.float64))  # (g,q+1)
    place = torch.arange(q)
    lag = place[:, None] - place - 1
    causal = powers[:, lag.clamp(min=0)] * (lag >= 0)  # (g,q,q)
    scale = _scale(log_rates, chunks * q).view(g, chunks, q, 1)
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
    slope, decay = read.chunk(2, dim=2)
    normed = decay * torch.rsqrt(decay.square().mean(-1, keepdim=True) + EPS)
    return u * F.silu(slope) + torch.sigmoid(f) * normed * gain


def mixing(
    arrays: Sequence[NDArray[np.float32]], form: str, threads: int
) -> Callable[[], NDArray[np.float32]]:
    """Mixing without projections, to be timed: a call returns y (n,c,w).

    arrays: u v f e (n,c,w), slope decay (c,), gain (c*w,); form: "chunked" or "recurrent"
    """
    read_by = {"chunked": read_chunked, "recurrent": read_recurrent}[form]
    u, v, f, e, slope, decay, gain = (torch.from_numpy(array) for array in arrays)
    c, w = u.shape[1:]
    log_rates = torch.log(torch.cat([slope, decay]).double())
    memories = torch.cat([v, e], dim=1).transpose(0, 1)[:, :, None]  # (g,n,1,w)

    @torch.inference_mode()
    def call() -> NDArray[np.float32]:
        read = read_by(memories, log_rates).permute(2, 1, 0, 3)
        mixed: NDArray[np.float32] = fuse(u[None], f[None], read, gain.view(c, w))[0].numpy()
        return mixed

    torch.set_num_threads(threads)
    return call


def _scale(log_rates: Tensor, n: int) -> Tensor:
    """Factor of each read (g,n); 1 / Z_t for slopes (eq. 16), the rate itself for decays."""
    c = log_rates.shape[0] // 2
    t = torch.arange(n, dtype=torch.float64).clamp(min=1)
    normaliser = torch.expm1(log_rates[:c, None] * t) / torch.expm1(log_rates[:c, None])
    return torch.cat([1 / normaliser, torch.exp(log_rates[c:, None]).expand(-1, n)])


class Mcsd(nn.Module):
    """One layer.

    ufve: the four projections in this order, so that one product makes them and the inputs of
    both memories are adjacent; logits: of the rates, float64, so that they survive a round trip
    """

    gain: Tensor
    logits: Tensor

    def __init__(self, shape: Shape, paper: bool = False) -> None:
        super().__init__()
        self.channels, self.paper = shape.channels, paper
        width, inputs = shape.width, shape.width // shape.channels if paper else shape.width
        bound = 1 / math.sqrt(inputs)
        self.ufve = nn.Parameter(torch.empty(4 * width, inputs).uniform_(-bound, bound))
        self.gain = nn.Parameter(torch.ones(width))
        if not paper:
            bound = 1 / math.sqrt(width)
            self.o = nn.Parameter(torch.empty(width, width).uniform_(-bound, bound))
        rates = np.concatenate([paper_slopes(self.channels), paper_decays(self.channels)])
        if paper:
            self.register_buffer("logits", _logit(rates))
        else:
            self.logits = nn.Parameter(_logit(rates))

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        b, n, width = x.shape
        c, w = self.channels, width // self.channels
        if self.paper:
            blocks = self.ufve.view(4, c, w, w).permute(1, 3, 0, 2).reshape(c, w, 4 * w)
            by_channel = x.view(b * n, c, w).transpose(0, 1)
            projected = torch.bmm(by_channel, blocks).view(c, b, n, 4, w).permute(1, 2, 3, 0, 4)
        else:
            projected = linear(x, self.ufve).view(b, n, 4, c, w)
        if x.dtype == torch.float32:
            rates = torch.sigmoid(self.logits).view(2, c).to(torch.float32)
            out = mixed(projected.reshape(b, n, 4, width), rates, self.gain)
        else:
            u, f, memories = projected[:, :, 0], projected[:, :, 1], projected[:, :, 2:]
            stacked = memories.flatten(2, 3).permute(2, 1, 0, 3)  # (g,n,b,w)
            read = read_matrix(stacked, F.logsigmoid(self.logits)).permute(2, 1, 0, 3)
            out = fuse(u, f, read, self.gain.view(c, w)).reshape(b, n, width)
        return out if self.paper else linear(out, self.o)

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Tensors by the names of spec.py, float32."""
        u, f, v, e = (_numpy(part) for part in self.ufve.chunk(4))
        slope, decay = (_numpy(torch.sigmoid(part)) for part in self.logits.chunk(2))
        found = {"u": u, "v": v, "f": f, "e": e, "slope": slope, "decay": decay}
        found["gain"] = _numpy(self.gain)
        return found if self.paper else found | {"o": _numpy(self.o)}

    @torch.no_grad()
    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of export."""
        self.ufve.copy_(torch.cat([torch.tensor(arrays[name]) for name in "ufve"]))
        self.logits.copy_(_logit(np.concatenate([arrays["slope"], arrays["decay"]])))
        self.gain.copy_(torch.tensor(arrays["gain"]))
        if not self.paper:
            self.o.copy_(torch.tensor(arrays["o"]))


def build(shape: Shape, paper: bool = False) -> Mcsd:
    """A layer with PyTorch's default initial weights and the paper's decays."""
    return Mcsd(shape, paper)


def _logit(rates: NDArray[Any]) -> Tensor:
    wide = torch.tensor(rates, dtype=torch.float64)
    return torch.log(wide) - torch.log1p(-wide)


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().to(torch.float32).numpy().copy()
