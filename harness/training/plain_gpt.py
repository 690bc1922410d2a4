"""The plain GPT block (learned positions, LayerNorm, GELU), only as a yardstick everyone knows.

Follows GPT-2 (Radford et al. 2019) as in the nanoGPT repository's model.py: no biases, tied head,
initial weights N(0, 0.02), those that feed the residual stream divided by sqrt(2 layers).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE = 0.02


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        inner = SCALE / math.sqrt(2 * layers)
        self.first_norm, self.second_norm = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Parameter(torch.randn(3 * width, width) * SCALE)
        self.o = nn.Parameter(torch.randn(width, width) * inner)
        self.up = nn.Parameter(torch.randn(4 * width, width) * SCALE)
        self.down = nn.Parameter(torch.randn(width, 4 * width) * inner)

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        projected = F.linear(self.first_norm(x), self.qkv).view(b, n, 3, self.heads, -1)
        q, k, v = projected.permute(2, 0, 3, 1, 4)  # (b,h,n,w) each
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.linear(mixed.transpose(1, 2).reshape(b, n, width), self.o)
        return x + F.linear(F.gelu(F.linear(self.second_norm(x), self.up)), self.down)


class PlainGpt(nn.Module):
    """tokens (b,n) int64 -> logits (b,n,vocabulary); n at most `context`."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, context: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocabulary, width) * SCALE)
        self.positions = nn.Parameter(torch.randn(context, width) * SCALE)
        self.blocks = nn.Sequential(*(PlainBlock(width, heads, layers) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.embedding) + self.positions[: tokens.shape[1]]
        return F.linear(self.norm(self.blocks(x)), self.embedding)
