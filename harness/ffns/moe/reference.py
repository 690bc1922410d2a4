"""The mixture of experts in PyTorch, with the loss that keeps experts equally busy."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.autograd import linear, matrix
from harness.ffns._gated import Gated
from harness.records import Shape

BALANCE_WEIGHT = 0.01  # Fedus et al. 2021, section 2.2


class Moe(Gated):
    """One layer; `imbalance` is that of the tokens last seen, at least 1, with gradient."""

    EXTRA = ("router",)

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.router = matrix(self.groups, shape.width)
        self.chosen = min(shape.chosen, self.groups)
        self.imbalance = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        logits = linear(x, self.router)
        best, places = logits.topk(self.chosen, dim=-1)
        mask = torch.zeros_like(logits).scatter(-1, places, best.softmax(-1))
        busy = (mask > 0).to(x.dtype).mean((0, 1)) / self.chosen  # share of all that is given out
        self.imbalance = self.groups * (busy * logits.softmax(-1).mean((0, 1))).sum()
        return self.masked(self.neurons(x), mask)

    def penalty(self) -> Tensor:
        """Fedus et al. 2021, eq. 4 to 6, with the shares of k experts a token."""
        return BALANCE_WEIGHT * self.imbalance


def build(shape: Shape) -> Moe:
    """A layer with PyTorch's default initial weights."""
    return Moe(shape)
