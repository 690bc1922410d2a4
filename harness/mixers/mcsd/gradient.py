"""The recurrence over whole texts as one step of autograd, run by the kernels of the engine.

O(n) and in one pass each way, where products of Toeplitz matrices are O(n q) and what they read
and gate goes through memory a dozen times. Sizes: b sequences, n tokens, c channels, w features.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import mcsd, mcsd_backward
from kernels.simd import OPTIONS
from kernels.spec import Array


def mixed(projected: Tensor, rates: Tensor, gain: Tensor) -> Tensor:
    """projected (b,n,4,c*w): u f v e; rates (2,c): slope, decay; gain (c*w,) -> y (b,n,c*w)."""
    return cast(Tensor, _Mixed.apply(projected, rates, gain))  # type: ignore[no-untyped-call]


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, rates: Tensor, gain: Tensor) -> Tensor:
        ctx.save_for_backward(projected, rates, gain)
        b, n, _, width = projected.shape
        y = torch.empty(b, n, width)
        slope, decay = _arrays(*rates.contiguous())
        state = np.empty(2 * width + slope.size, np.float32)
        _forward(*_arrays(projected.contiguous()), slope, decay, *_arrays(gain, y), state)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected, rates, gain = ctx.saved_tensors
        _, n, _, width = projected.shape
        to_projected = torch.empty_like(projected, memory_format=torch.contiguous_format)
        to_rates, to_gain = torch.zeros_like(rates), torch.zeros_like(gain)
        slope, decay = _arrays(*rates.contiguous())
        read = np.empty((2, n, width), np.float32)
        weight = np.empty((2, n, slope.size), np.float32)
        spare = np.empty((mcsd_backward.SPARE, width), np.float32)
        _backward(
            *_arrays(projected.contiguous()), slope, decay, *_arrays(gain, grad.contiguous()),
            read, weight, spare, *_arrays(to_projected, to_rates, to_gain),
        )  # fmt: skip
        return to_projected, to_rates, to_gain


def _arrays(*tensors: Tensor) -> list[Array]:
    return [tensor.detach().numpy() for tensor in tensors]


@njit(**OPTIONS)
def _forward(
    projected: Array, slope: Array, decay: Array, gain: Array, y: Array, state: Array
) -> None:
    b, n, _, width = projected.shape
    c = len(slope)
    for i in range(b):
        state[:] = np.float32(0.0)
        text = projected[i].reshape(n * 4 * width)
        mcsd.scan(
            text, text[2 * width :], text[width:], text[3 * width :], 4 * width, n, c, width // c,
            0, c, slope, decay, gain, state, y[i].reshape(n * width), width,
        )  # fmt: skip


@njit(**OPTIONS)
def _backward(
    projected: Array, slope: Array, decay: Array, gain: Array, grad: Array,
    read: Array, weight: Array, spare: Array, to_projected: Array, to_rates: Array, to_gain: Array,
) -> None:  # fmt: skip
    b, n, _, width = projected.shape
    for i in range(b):
        text = projected[i].reshape(n * 4 * width)
        to = to_projected[i].reshape(n * 4 * width)
        mcsd_backward.backward(
            text, text[2 * width :], text[width:], text[3 * width :], 4 * width, n,
            width // len(slope), slope, decay, gain, grad[i].reshape(n * width), width,
            read[0], read[1], weight[0], weight[1], spare,
            to, to[2 * width :], to[width:], to[3 * width :], to_rates[0], to_rates[1], to_gain,
        )  # fmt: skip
