"""Vectors rounded to int8, as the integer products want them: with one scale, or one for 32 values.

    one scale:   | scale float32 | sum int32 | 56 B unused | k0 k1 ... padded to 32 with zeros |
    by groups:   | k0 ... k31 | scale float32 | sum int32 |  next group ...                     40 B

The sum is that of the rounded values: weights that are stored with a surplus need it taken off.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.simd import EXACT, LANES, OPTIONS, TINY
from kernels.spec import Array

HEADER = 64  # bytes before the values of a vector with one scale
GROUP, GROUP_BYTES = 32, 40
SCALE, SUM = 32, 36  # places in a group


@njit(**OPTIONS)
def row_bytes(k: int) -> int:
    return HEADER + (k + 31) // 32 * 32


@njit(**OPTIONS)
def groups_bytes(k: int) -> int:
    return (k + 31) // 32 * GROUP_BYTES


@njit(**EXACT)
def by_row(x: Array, at: int, k: int, activations: Array, to: int) -> None:
    """Round x[at:at+k] to int8 with one scale into the byte buffer `activations` at `to`."""
    whole, wide = k // LANES * LANES, (k + 31) // 32 * 32
    peak, poison = simd.splat_f32(np.float32(0.0)), simd.splat_f32(np.float32(0.0))
    zero = poison
    for i in range(0, whole, LANES):
        v = simd.load_f32(x, at + i)
        peak = simd.greater(peak, simd.absolute(v))
        poison = simd.fma(v, zero, poison)  # stays 0 unless a value is NaN or infinite
    top, bad = simd.largest(peak), simd.sum_f32(poison)
    for i in range(whole, k):
        top = max(top, abs(x[at + i]))
        bad += x[at + i] * np.float32(0.0)
    inverse = np.float32(127.0) / top if top > TINY else np.float32(0.0)
    factor, total = simd.splat_f32(inverse), simd.splat_i32(np.int32(0))
    for i in range(0, whole, LANES):
        q = simd.round_i32(simd.multiply(simd.load_f32(x, at + i), factor))
        total = simd.add_i32(total, q)
        simd.store_i8(activations, to + HEADER + i, q)
    tail = simd.sum_i32(total)
    for i in range(whole, k):
        rounded = np.int32(np.rint(x[at + i] * inverse))
        tail = np.int32(tail + rounded)
        activations[to + HEADER + i] = np.uint8(rounded & np.int32(255))
    for i in range(k, wide):
        activations[to + HEADER + i] = np.uint8(0)
    simd.poke_f32(activations, to, top / np.float32(127.0) + bad)
    simd.poke_i32(activations, to + 4, tail)


@njit(**EXACT)
def by_groups(x: Array, at: int, k: int, activations: Array, to: int) -> None:
    """Round x[at:at+k] to int8 by groups of 32 into the byte buffer `activations` at `to`."""
    zero = simd.splat_f32(np.float32(0.0))
    groups = (k + 31) // 32
    for g in range(groups):
        i, p = at + g * GROUP, to + g * GROUP_BYTES
        if g * GROUP + GROUP <= k:
            u, v = simd.load_f32(x, i), simd.load_f32(x, i + LANES)
            top = simd.largest(simd.greater(simd.absolute(u), simd.absolute(v)))
            bad = simd.sum_f32(
                simd.fma(u, zero, simd.multiply(v, zero))
            )  # NaN if any is not finite
            inverse = np.float32(127.0) / top if top > TINY else np.float32(0.0)
            factor = simd.splat_f32(inverse)
            a = simd.round_i32(simd.multiply(u, factor))
            b = simd.round_i32(simd.multiply(v, factor))
            simd.store_i8(activations, p, a)
            simd.store_i8(activations, p + LANES, b)
            total = simd.sum_i32(simd.add_i32(a, b))
        else:
            top, bad, total = np.float32(0.0), np.float32(0.0), np.int32(0)
            for j in range(k - g * GROUP):
                top = max(top, abs(x[i + j]))
                bad += x[i + j] * np.float32(0.0)
            inverse = np.float32(127.0) / top if top > TINY else np.float32(0.0)
            for j in range(GROUP):
                inside = g * GROUP + j < k
                q = np.int32(np.rint(x[i + j] * inverse)) if inside else np.int32(0)
                activations[p + j] = np.uint8(q & np.int32(255))
                total = np.int32(total + q)
        simd.poke_f32(activations, p + SCALE, top / np.float32(127.0) + bad)
        simd.poke_i32(activations, p + SUM, np.int32(total))


def rounded_row(x: Array) -> Array:
    """x (...,k) float32 as `by_row` stores it: 255 levels up to its largest value; float64."""
    import torch

    values = torch.from_numpy(x)
    top = values.abs().amax(-1, keepdim=True)
    inverse = torch.where(top > float(TINY), 127.0 / top, 0.0)
    return (torch.round(values * inverse).double() * (top / 127.0).double()).numpy()


def rounded_groups(x: Array) -> Array:
    """x (...,k) float32 as `by_groups` stores it: each group of 32 as by `rounded_row`."""
    k = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-k // GROUP) * GROUP), np.float32)
    padded[..., :k] = x
    return rounded_row(padded.reshape(*x.shape[:-1], -1, GROUP)).reshape(padded.shape)[..., :k]
