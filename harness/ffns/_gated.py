"""The PyTorch half of ffns of groups: a gated ffn whose neurons are masked group by group.

Sizes: b sequences, n tokens, g groups. Training computes every group and masks, so it costs as
much as a dense layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.autograd import exported, linear, matrix, swiglu
from harness.ffns import _groups
from harness.records import Shape


class Gated(nn.Module):
    """The matrices of one layer; gate and up are one inside, so that one product makes both.

    EXTRA: tensors of the spec beside gate, up and down, by the names of their parameters
    """

    EXTRA: ClassVar[tuple[str, ...]] = ()

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.group, self.groups = shape.group, _groups.count(shape)
        self.gate_up = matrix(2 * shape.hidden, shape.width)
        self.down = matrix(shape.width, shape.hidden)

    def neurons(self, x: Tensor) -> Tensor:
        """silu(gate x) * up x, (b,n,hidden)."""
        return swiglu(linear(x, self.gate_up))

    def gated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gates before their activation, and what they let through, each (b,n,hidden)."""
        gate, up = linear(x, self.gate_up).chunk(2, dim=-1)
        return gate, up

    def masked(self, neurons: Tensor, mask: Tensor) -> Tensor:
        """Neurons (b,n,hidden) times their group's entry of mask (b,n,g), projected down."""
        kept = neurons.view(*mask.shape, self.group) * mask[..., None]
        return linear(kept.flatten(-2), self.down)

    def largest(self, gates: Tensor) -> Tensor:
        """Gates (b,n,hidden) -> the largest in each group, (b,n,g)."""
        return gates.view(*gates.shape[:-1], self.groups, self.group).amax(-1)

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Tensors by the names of spec.py, float32."""
        gate, up = self.gate_up.chunk(2)
        found = {"gate": gate, "up": up, "down": self.down}
        found |= {name: getattr(self, name) for name in self.EXTRA}
        return {name: exported(tensor) for name, tensor in found.items()}

    @torch.no_grad()
    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of export."""
        self.gate_up.copy_(torch.cat([torch.tensor(arrays[name]) for name in ("gate", "up")]))
        for name in ("down", *self.EXTRA):
            getattr(self, name).copy_(torch.tensor(arrays[name]))


def hard(score: Tensor) -> Tensor:
    """1 where a score is above zero, else 0; backward as its sigmoid (Bengio et al. 2013)."""
    soft = torch.sigmoid(score)
    return (score > 0).to(score.dtype) + (soft - soft.detach())
