"""Gated feed-forward layer in PyTorch: down(silu(gate x) * up x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.autograd import exported, linear, matrix, swiglu
from harness.records import Shape


class Dense(nn.Module):
    """One layer; gate and up are one matrix inside, so that one product makes both."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_up = matrix(2 * shape.hidden, shape.width)
        self.down = matrix(shape.width, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        return linear(swiglu(linear(x, self.gate_up)), self.down)

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Tensors by the names of spec.py, float32."""
        gate, up = (exported(part) for part in self.gate_up.chunk(2))
        return {"gate": gate, "up": up, "down": exported(self.down)}

    @torch.no_grad()
    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of export."""
        self.gate_up.copy_(torch.cat([torch.tensor(arrays[name]) for name in ("gate", "up")]))
        self.down.copy_(torch.tensor(arrays["down"]))


def build(shape: Shape) -> Dense:
    """A layer with PyTorch's default initial weights."""
    return Dense(shape)
