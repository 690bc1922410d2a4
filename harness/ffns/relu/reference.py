"""The ReLU-gated ffn in PyTorch. What it skips is zero, so that its forward skips nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.autograd import linear
from harness.ffns._gated import Gated, hard
from harness.records import Shape


class Relu(Gated):
    """One layer; `running` is the share of groups with an open gate, with gradient."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.running = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        gate, up = self.gated(x)
        self.running = hard(self.largest(gate)).mean()
        return linear(F.relu(gate) * up, self.down)


def build(shape: Shape) -> Relu:
    """A layer with PyTorch's default initial weights."""
    return Relu(shape)
