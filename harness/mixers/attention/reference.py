"""Causal attention of the Llama shape in PyTorch: a layer to train and to check engines with.

Sizes: b sequences, n tokens, h query heads, g key-value heads, w features of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from harness.autograd import exported, linear, matrix
from harness.mixers.attention.spec import slopes, speeds
from harness.records import Shape


def rotate(x: Tensor, speeds: NDArray[np.float64]) -> Tensor:
    """x (b,h,n,w) with features i and i + w/2 turned by position times speeds (w/2,).

    Su et al. 2021, in the half-split layout of Llama.
    """
    n = x.shape[-2]
    angle = torch.arange(n, dtype=torch.float64)[:, None] * torch.from_numpy(speeds)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return cast(Tensor, _Rotate.apply(x, cos, sin))  # type: ignore[no-untyped-call]


class _Rotate(torch.autograd.Function):
    """What comes back of a rotation is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    found = torch.empty_like(x)
    torch.mul(a, cos, out=found[..., :half]).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=found[..., half:]).addcmul_(a, sin)
    return found


def bias(slopes: Tensor, n: int) -> Tensor:
    """What is added to the score of query t and key p (h,n,n): slopes (h,) times p - t, or -inf.

    Press et al. 2021, section 3.
    """
    place = torch.arange(n, dtype=slopes.dtype)
    ahead = place - place[:, None]
    return slopes[:, None, None] * ahead.masked_fill(ahead > 0, -torch.inf)


class Attention(nn.Module):
    """One layer; q, k and v are one matrix inside, so that one product makes them.

    slopes: fixed, of the linear biases that stand for positions where `alibi`
    """

    slopes: Tensor

    def __init__(self, shape: Shape, alibi: bool = False) -> None:
        super().__init__()
        self.alibi = alibi
        if alibi:
            self.register_buffer("slopes", torch.from_numpy(slopes(shape.heads)).float())
        self.heads, self.kv_heads = shape.heads, shape.kv_heads
        self.head_width, self.speeds = shape.head_width, speeds(shape)
        rows = (shape.heads + 2 * shape.kv_heads) * shape.head_width
        self.qkv = matrix(rows, shape.width)
        self.o = matrix(shape.width, shape.heads * shape.head_width)

    def forward(self, x: Tensor) -> Tensor:
        """x (b,n,width) -> (b,n,width)."""
        b, n, _ = x.shape
        h, g, w = self.heads, self.kv_heads, self.head_width
        projected = linear(x, self.qkv).view(b, n, h + 2 * g, w).transpose(1, 2)
        v = projected[:, h + g :]
        if self.alibi:
            q, k = projected[:, :h], projected[:, h : h + g]
            # of four axes: with three, all chances are made, and kept for the way back
            mask = bias(self.slopes, n).expand(b, -1, -1, -1)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=h != g)
        else:
            turned = rotate(projected[:, : h + g], self.speeds)
            q, k = turned[:, :h], turned[:, h:]
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=h != g)
        return linear(mixed.transpose(1, 2).reshape(b, n, h * w), self.o)

    def _rows(self) -> list[int]:
        return [n * self.head_width for n in (self.heads, self.kv_heads, self.kv_heads)]

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Tensors by the names of spec.py, float32."""
        q, k, v = (exported(part) for part in torch.split(self.qkv, self._rows()))
        found = {"q": q, "k": k, "v": v, "o": exported(self.o)}
        return found | {"slopes": exported(self.slopes)} if self.alibi else found

    @torch.no_grad()
    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of export."""
        self.qkv.copy_(torch.cat([torch.tensor(arrays[name]) for name in "qkv"]))
        self.o.copy_(torch.tensor(arrays["o"]))
        if self.alibi:
            self.slopes.copy_(torch.tensor(arrays["slopes"]))


def build(shape: Shape, alibi: bool = False) -> Attention:
    """A layer with PyTorch's default initial weights."""
    return Attention(shape, alibi)
