"""The hashed ffn in PyTorch: a fixed table of which token runs which groups."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.ffns._gated import Gated
from harness.records import Array, Shape


class Hash(Gated):
    """One layer. It has to be told the tokens (b,n) behind its input; without, all are token 0."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.chosen_by_token = torch.from_numpy(table(shape))
        self.tokens: Tensor | None = None

    def see(self, tokens: Tensor) -> None:
        """The tokens of the next forward."""
        self.tokens = tokens

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        tokens = torch.zeros(x.shape[:2], dtype=torch.int64) if self.tokens is None else self.tokens
        return self.masked(self.neurons(x), self.chosen_by_token[tokens].to(x.dtype))


def table(shape: Shape) -> Array:
    """Whether a token runs a group, (vocabulary, groups): those with the lowest hashes.

    MurmurHash3's finaliser (Appleby 2011) of both numbers, in whole numbers below 2^64.
    """
    groups = shape.hidden // shape.group
    tokens = np.arange(shape.vocabulary, dtype=np.uint64)[:, None]
    h = tokens * 0x9E3779B1 + np.arange(groups, dtype=np.uint64) * 0x85EBCA77 + 0x27D4EB2F
    h &= 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    return h.argsort(-1, kind="stable").argsort(-1) < shape.chosen


def build(shape: Shape) -> Hash:
    """A layer with PyTorch's default initial weights."""
    return Hash(shape)
