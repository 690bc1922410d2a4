"""Selective feed-forward layer in PyTorch: the hard choice trained through a sigmoid.

Sizes: b sequences, n tokens, g groups. Forward always uses the hard choice (score > 0); backward
sees the sigmoid of the score instead (straight-through estimator, Bengio et al. 2013). Training
computes every group and masks, so it costs as much as a dense layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.autograd import linear, swiglu
from harness.records import Shape

NAMES = ("down", "selector_in", "selector_out", "selector_bias")


class Selective(nn.Module):
    """One layer. `explore` makes a share of the tokens of the next forwards run random groups."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.group = shape.group
        groups, rank = shape.hidden // shape.group, shape.selector_rank
        self.gate_up = _matrix(2 * shape.hidden, shape.width)
        self.down = _matrix(shape.width, shape.hidden)
        self.selector_in = _matrix(rank, shape.width)
        self.selector_out = _matrix(groups, rank)
        self.selector_bias = nn.Parameter(torch.zeros(groups))
        self.random_share, self.active = 0.0, 1.0
        self.generator: torch.Generator | None = None
        self.chosen = torch.zeros(())  # mean share of groups the selector chose, with gradient

    def explore(self, share: float, active: float, generator: torch.Generator) -> None:
        """Let `share` of the training tokens run each group with probability `active`."""
        self.random_share, self.active, self.generator = share, active, generator

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        inner = linear(x, self.selector_in)
        score = linear(inner, self.selector_out) + self.selector_bias  # (b,n,g)
        soft = torch.sigmoid(score)
        mask = (score > 0).to(x.dtype) + (soft - soft.detach())
        self.chosen = mask.mean()
        if self.training and self.random_share > 0 and self.generator is not None:
            draw = torch.rand(score.shape, generator=self.generator)
            token = torch.rand(score.shape[:2], generator=self.generator)[..., None]
            mask = torch.where(token < self.random_share, (draw < self.active).to(x.dtype), mask)
        neurons = swiglu(linear(x, self.gate_up)).view(*mask.shape, self.group) * mask[..., None]
        return linear(neurons.flatten(-2), self.down)

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Tensors by the names of spec.py, float32."""
        gate, up = self.gate_up.detach().chunk(2)
        found = {"gate": gate, "up": up} | {name: getattr(self, name).detach() for name in NAMES}
        return {name: t.to(torch.float32).numpy().copy() for name, t in found.items()}

    @torch.no_grad()
    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of export."""
        self.gate_up.copy_(torch.cat([torch.tensor(arrays[name]) for name in ("gate", "up")]))
        for name in NAMES:
            getattr(self, name).copy_(torch.tensor(arrays[name]))


def build(shape: Shape) -> Selective:
    """A layer with PyTorch's default initial weights and a selector without bias."""
    return Selective(shape)


def _matrix(rows: int, columns: int) -> nn.Parameter:
    bound = 1 / math.sqrt(columns)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))
