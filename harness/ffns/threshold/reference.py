"""The thresholded ffn in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.ffns._gated import Gated
from harness.records import Shape


class Threshold(Gated):
    """One layer; its threshold is set, never trained."""

    EXTRA = ("threshold",)

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.threshold: Tensor
        self.register_buffer("threshold", torch.full((1,), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        gate, up = self.gated(x)
        gate = F.silu(gate)
        runs = self.largest(gate.abs()) > self.threshold
        return self.masked(gate * up, runs.to(x.dtype))


def build(shape: Shape) -> Threshold:
    """A layer with PyTorch's default initial weights, and no threshold."""
    return Threshold(shape)
