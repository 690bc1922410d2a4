"""A model -> the same with its layers' matrices rounded to a format's grid as it trains.

Sizes: m rows, g groups, w columns of a group. Forward multiplies by rounded weights. Backward
hands their gradient to the weights behind them as if nothing had been rounded (straight-through
estimator, Bengio et al. 2013), and learns the scales too (LSQ, Esser et al. 2020).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from harness import candidates
from harness.records import Array, Format, Grid
from harness.training.model import Model


class Round(torch.autograd.Function):
    """weights (m,g,w), scale (m,g) -> the nearest of scale * (low..high), (m,g,w)."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        wide = stored(scale)[..., None]
        ratio = weights / wide
        levels = ratio.round().clamp(low, high)
        ctx.save_for_backward(ratio, levels)
        ctx.ends = low, high
        return levels * wide

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        """Weights beyond the last level get none: a step of theirs would change nothing."""
        ratio, levels = ctx.saved_tensors
        low, high = ctx.ends
        inside = (ratio >= low - 0.5) & (ratio <= high + 0.5)
        passed = gradient * inside
        of_scale = (gradient * levels - passed * ratio).sum(-1)
        return passed, of_scale * ratio[0, 0].numel() ** -0.5, None, None


def stored(scale: Tensor) -> Tensor:
    """As float16 keeps it; never 0, so that a group can come back."""
    tiny = torch.finfo(torch.float16).tiny
    return torch.where(scale.abs() < tiny, tiny, scale).half().float()


class Rounded(nn.Module):
    """`model` with every matrix that a checkpoint packs inside layers rounded to a form's grid.

    stretches: how far each scale went from what the form would have chosen at first: its logarithm,
    so that a step changes small and large scales alike; one vector a matrix, which does not decay
    """

    def __init__(self, model: Model, form: Format, grid: Grid) -> None:
        super().__init__()
        self.model, self.form, self.grid = model, form, grid
        self.names = matrices(model)
        self.first, self.stretches = {}, nn.ParameterList()
        for name in self.names:
            weights = model.get_parameter(name).detach().numpy()
            self.first[name] = torch.from_numpy(form.pack(weights)["scale"]).float()
            self.stretches.append(nn.Parameter(torch.zeros(self.first[name].numel())))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (b,n) int64 -> logits (b,n,vocabulary)."""
        rounded = {}
        for name, scale in self.scales().items():
            weights = self.model.get_parameter(name)
            parts = self._groups(weights)
            levels = Round.apply(  # type: ignore[no-untyped-call]
                parts, scale, self.grid.low, self.grid.high
            )
            # oneDNN multiplies by rows with a gap between them a hundred times as slowly
            rounded[name] = levels.flatten(1)[:, : weights.shape[1]].contiguous()
        logits: Tensor = functional_call(self.model, rounded, (tokens,))
        return logits

    def scales(self) -> dict[str, Tensor]:
        """Of each matrix, (m,g)."""
        pairs = zip(self.names, self.stretches, strict=True)
        return {n: self.first[n] * s.exp().view_as(self.first[n]) for n, s in pairs}

    @torch.no_grad()
    def packed(self) -> tuple[dict[str, Array], dict[str, str]]:
        """Arrays and formats of a checkpoint, with the very levels that the last forward used."""
        plain, names = self.model.export(), candidates.tensors(self.model.shape)
        levels, scales = copy.deepcopy(self.model), copy.deepcopy(self.model)
        for name, scale in self.scales().items():
            weights = levels.get_parameter(name)
            wide, columns = stored(scale), weights.shape[1]
            near = (self._groups(weights) / wide[..., None]).round()
            near = near.clamp(self.grid.low, self.grid.high).flatten(1)[:, :columns]
            weights.copy_(near)
            repeated = wide.repeat_interleave(self.grid.group, 1)[:, :columns]
            scales.get_parameter(name).copy_(repeated)
        whole, each = levels.export(), scales.export()
        inside = [n for n, t in names.items() if t.packed and "." in n]
        for name in inside:
            padding = ((0, 0), (0, -whole[name].shape[1] % self.grid.group))
            parts = self.grid.store(
                np.pad(whole[name], padding), each[name][:, :: self.grid.group].astype(np.float16)
            )
            del plain[name]
            plain |= {f"{name}.{key}" if key else name: part for key, part in parts.items()}
        return plain, dict.fromkeys(inside, self.form.name)

    def _groups(self, weights: Tensor) -> Tensor:
        """(m,k) -> (m,g,w), padded with zeros."""
        padded = F.pad(weights, (0, -weights.shape[1] % self.grid.group))
        return padded.view(len(weights), -1, self.grid.group)


def matrices(model: Model) -> list[str]:
    """Parameters inside layers that hold what a checkpoint packs."""
    plain = {t.name for t in candidates.tensors(model.shape).values() if not t.packed}
    return [
        name
        for name, parameter in model.named_parameters()
        if name.startswith("blocks.")
        and parameter.ndim == 2
        and name.rpartition(".")[2] not in plain
    ]
