"""Scalar functions that LLVM turns into vector code: exp, sigmoid, SiLU in float32."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.simd import OPTIONS, Vector

# Cephes `expf`, S. Moshier 1992: ln 2 in two parts, and the polynomial of e^r, highest power first
INVERSE_LN2, LN2_HIGH, LN2_LOW = (np.float32(c) for c in (1.44269504, 0.693359375, 2.12194440e-4))
P5, P4, P3, P2, P1, P0 = (
    np.float32(c)
    for c in (
        1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
        5.0000001201e-1,
    )
)  # fmt: skip
LOWEST, HIGHEST = np.float32(-87.0), np.float32(88.0)  # where float32 under- and overflows


@njit(**OPTIONS)
def exp(x: np.float32) -> np.float32:
    """e^x to 2e-7 relative, as 2^n p(r) with a degree-5 polynomial on |r| <= ln(2)/2.

    Saturates outside LOWEST..HIGHEST; a NaN stays a NaN.
    """
    x = LOWEST if x < LOWEST else x
    x = HIGHEST if x > HIGHEST else x
    n = np.floor(x * INVERSE_LN2 + np.float32(0.5))
    r = x - n * LN2_HIGH + n * LN2_LOW
    p = ((((P5 * r + P4) * r + P3) * r + P2) * r + P1) * r + P0
    p = p * r * r + r + np.float32(1.0)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return p * power.view(np.float32)


@njit(**OPTIONS)
def sigmoid(x: np.float32) -> np.float32:
    return np.float32(1.0) / (np.float32(1.0) + exp(-x))


@njit(**OPTIONS)
def silu(x: np.float32) -> np.float32:
    return x * sigmoid(x)


@njit(**OPTIONS)
def sigmoid_lanes(x: Vector) -> Vector:
    """1 / (1 + e^-x) of sixteen values, by the polynomial of `exp`."""
    one, half = simd.splat_f32(np.float32(1.0)), simd.splat_f32(np.float32(0.5))
    low, high = simd.splat_f32(LOWEST), simd.splat_f32(HIGHEST)
    v = simd.within(simd.subtract(simd.splat_f32(np.float32(0.0)), x), low, high)
    n = simd.floor(simd.fma(v, simd.splat_f32(INVERSE_LN2), half))
    r = simd.fma(n, simd.splat_f32(-LN2_HIGH), v)
    r = simd.fma(n, simd.splat_f32(LN2_LOW), r)
    p = simd.fma(simd.splat_f32(P5), r, simd.splat_f32(P4))
    p = simd.fma(p, r, simd.splat_f32(P3))
    p = simd.fma(p, r, simd.splat_f32(P2))
    p = simd.fma(p, r, simd.splat_f32(P1))
    p = simd.fma(p, r, simd.splat_f32(P0))
    p = simd.add(simd.fma(p, simd.multiply(r, r), r), one)
    return simd.divide(one, simd.fma(p, simd.power_of_two(n), one))
