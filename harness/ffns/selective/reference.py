"""Selective feed-forward layer in PyTorch: the hard choice trained through a sigmoid.

Sizes: b sequences, n tokens, g groups. Forward always uses the hard choice (score > 0); backward
sees the sigmoid of the score instead (straight-through estimator, Bengio et al. 2013).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.autograd import linear, matrix
from harness.ffns._gated import Gated, hard
from harness.records import Shape

# A selector's scores move this many times as far in a step as its weights alone would: a choice
# that follows its groups too slowly is made before it is learned.
GAIN = 4.0
OPEN = 1.0  # the score all groups start at, so that everything runs at first


class Selective(Gated):
    """One layer. `explore` makes a share of the tokens of the next forwards run random groups."""

    EXTRA = ("selector_in", "selector_out", "selector_bias")

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.selector_in = matrix(shape.selector_rank, shape.width)
        self.selector_out = matrix(self.groups, shape.selector_rank)
        self.selector_bias = nn.Parameter(torch.full((self.groups,), OPEN))
        self.random_share, self.active = 0.0, 1.0
        self.generator: torch.Generator | None = None
        self.running = torch.zeros(())  # mean share of groups the selector chose, with gradient

    def explore(self, share: float, active: float, generator: torch.Generator) -> None:
        """Let `share` of the training tokens run each group with probability `active`."""
        self.random_share, self.active, self.generator = share, active, generator

    def score(self, x: Tensor) -> Tensor:
        """x (..., width) -> (..., g)."""
        inner = GAIN * linear(x, self.selector_in)
        return linear(inner, self.selector_out) + self.selector_bias

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        score = self.score(x)
        mask = hard(score)
        self.running = mask.mean()
        if self.training and self.random_share > 0 and self.generator is not None:
            draw = torch.rand(score.shape, generator=self.generator)
            token = torch.rand(score.shape[:2], generator=self.generator)[..., None]
            mask = torch.where(token < self.random_share, (draw < self.active).to(x.dtype), mask)
        return self.masked(self.neurons(x), mask)

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Tensors by the names of spec.py, float32; the gain is part of the first matrix."""
        found = super().export()
        return {**found, "selector_in": found["selector_in"] * np.float32(GAIN)}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of export."""
        inner = arrays["selector_in"] / np.float32(GAIN)
        super().load({**arrays, "selector_in": inner})


def build(shape: Shape) -> Selective:
    """A layer with PyTorch's default initial weights, in which most groups run."""
    return Selective(shape)
