"""MCSD in PyTorch: a layer to train and to check the engine with.

The common form runs by the kernels and their gradients; the others, and anything in float64, by
the matrices of memory.py. Sizes: b sequences, n tokens, c channels, w features of a channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harness.autograd import exported, linear, matrix
from harness.mixers.mcsd.gradient import mixed
from harness.mixers.mcsd.memory import decay, read_chunked, read_matrix, slope
from harness.mixers.mcsd.spec import BOTH, NAMES
from harness.records import Shape

MATRIX_UP_TO = 64  # tokens; beyond, chunks are faster
# The paper's rates, as a start, learn 0.03 nats less in 1000 steps on TinyShakespeare: even its
# fastest slope keeps 0.6 of the token before the last.
SLOPE_LOGITS, DECAY_LOGITS = (-5.0, 1.5), (-1.0, 4.0)


def paper_slopes(channels: int) -> NDArray[np.float64]:
    """exp(-beta_i), beta_i = (2^(-8/C))^(i+1); eq. 2."""
    betas = 2.0 ** (-8.0 / channels * np.arange(1, channels + 1))
    return np.asarray(np.exp(-betas), np.float64)


def paper_decays(channels: int) -> NDArray[np.float64]:
    """1 - 2^(-5-i); eq. 8."""
    return np.asarray(1.0 - 2.0 ** (-5.0 - np.arange(channels)), np.float64)


def fast_slopes(channels: int) -> NDArray[np.float64]:
    """Where learned slopes start: from the token before alone to the last five."""
    return np.asarray(1 / (1 + np.exp(-np.linspace(*SLOPE_LOGITS, channels))), np.float64)


def fast_decays(channels: int) -> NDArray[np.float64]:
    """Where learned decays start: half-lives of half a token to 38."""
    return np.asarray(1 / (1 + np.exp(-np.linspace(*DECAY_LOGITS, channels))), np.float64)


FIXED = {"slope": paper_slopes, "decay": paper_decays}
LEARNED = {"slope": fast_slopes, "decay": fast_decays}


class Mcsd(nn.Module):
    """One layer.

    projections: gates, then memories, so that one product makes them all and the inputs of the
    memories are adjacent; logits: of the rates, float64, so that they survive a round trip
    """

    logits: Tensor

    def __init__(
        self,
        shape: Shape,
        *,
        learned: bool,
        kinds: Sequence[str] = BOTH,
        blocks: bool = False,
        concat: bool = False,
        output: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.kinds = shape.channels, tuple(kinds)
        self.blocks, self.concat, self.output = blocks, concat, output
        width, sections = shape.width, len(kinds)
        inputs = width // shape.channels if blocks else width
        self.projections = matrix(2 * sections * width, inputs)
        if "decay" in kinds:
            self.gain = nn.Parameter(torch.ones(list(kinds).count("decay") * width))
        if output:
            self.o = matrix(width, 2 * width if concat else width)
        start = LEARNED if learned else FIXED
        logits = _logit(np.concatenate([start[kind](shape.channels) for kind in kinds]))
        if learned:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        projected = self._projected(x)
        if self.kinds == BOTH and not self.concat and x.dtype == torch.float32:
            rates = torch.sigmoid(self.logits).view(2, self.channels).to(torch.float32)
            out = mixed(projected, rates, self.gain)
        else:
            parts = self._sections(projected)
            out = torch.cat(parts, dim=-1) if self.concat else torch.stack(parts).sum(0)
        return linear(out, self.o) if self.output else out

    def _projected(self, x: Tensor) -> Tensor:
        """Gates and memories of the sections (b,n,parts,width)."""
        b, n, width = x.shape
        parts = 2 * len(self.kinds)
        if not self.blocks:
            return linear(x, self.projections).view(b, n, parts, width)
        c, w = self.channels, width // self.channels
        blocks = self.projections.view(parts, c, w, w).permute(1, 3, 0, 2).reshape(c, w, parts * w)
        by_channel = x.view(b * n, c, w).transpose(0, 1)
        projected = torch.bmm(by_channel, blocks).view(c, b, n, parts, w)
        return projected.permute(1, 2, 3, 0, 4).reshape(b, n, parts, width)

    def _sections(self, projected: Tensor) -> list[Tensor]:
        """What each section adds (b,n,width)."""
        b, n, parts, width = projected.shape
        c, w, sections = self.channels, width // self.channels, parts // 2
        gates = projected[:, :, :sections].reshape(b, n, sections, c, w)
        memories = projected[:, :, sections:].reshape(b, n, sections * c, w)
        log_rates = F.logsigmoid(self.logits)
        averaged = torch.tensor([kind == "slope" for kind in self.kinds]).repeat_interleave(c)
        read_by = read_matrix if n <= MATRIX_UP_TO else read_chunked
        read = read_by(memories.permute(2, 1, 0, 3), log_rates, averaged)
        read = read.permute(2, 1, 0, 3).reshape(b, n, sections, c, w)
        gain = iter(self.gain.view(-1, c, w)) if "decay" in self.kinds else iter(())
        found = []
        for i, kind in enumerate(self.kinds):
            gate, memory = gates[:, :, i], read[:, :, i]
            gated = slope(gate, memory) if kind == "slope" else decay(gate, memory, next(gain))
            found.append(gated.flatten(2))
        return found

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Tensors by the names of spec.py, float32."""
        projections = zip(self._places(), self.projections.chunk(2 * len(self.kinds)), strict=True)
        found = {name: exported(part) for name, part in projections}
        rates = torch.sigmoid(self.logits).chunk(len(self.kinds))
        found |= {names[2]: exported(part) for names, part in zip(NAMES, rates, strict=False)}
        if "decay" in self.kinds:
            found["gain"] = exported(self.gain)
        return found | {"o": exported(self.o)} if self.output else found

    @torch.no_grad()
    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of export."""
        self.projections.copy_(torch.cat([torch.tensor(arrays[name]) for name in self._places()]))
        names = [section[2] for section in NAMES[: len(self.kinds)]]
        self.logits.copy_(_logit(np.concatenate([arrays[name] for name in names])))
        if "decay" in self.kinds:
            self.gain.copy_(torch.tensor(arrays["gain"]))
        if self.output:
            self.o.copy_(torch.tensor(arrays["o"]))

    def _places(self) -> list[str]:
        """Names of the projections in their order here."""
        return [section[part] for part in range(2) for section in NAMES[: len(self.kinds)]]


def build(shape: Shape, **options: Any) -> Mcsd:
    """A layer with PyTorch's default initial weights."""
    return Mcsd(shape, **options)


def _logit(rates: NDArray[Any]) -> Tensor:
    wide = torch.tensor(rates, dtype=torch.float64)
    return torch.log(wide) - torch.log1p(-wide)
