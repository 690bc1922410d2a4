"""Scalar functions that LLVM turns into vector code: exp, sigmoid, SiLU in float32."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels import simd
from kernels.simd import EXACT, OPTIONS, Vector

# Cephes `expf`, S. Moshier 1992: ln 2 in two parts, and the polynomial of e^r, highest power first
INVERSE_LN2, LN2_HIGH, LN2_LOW = (np.float32(c) for c in (1.44269504, 0.693359375, 2.12194440e-4))
P5, P4, P3, P2, P1, P0 = (
    np.float32(c)
    for c in (
        1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
        5.0000001201e-1,
    )
)  # fmt: skip
# 2^r on |r| <= 1/2 to 2.4e-7 in float32: least largest relative error, by Remez exchange
Q5, Q4, Q3, Q2, Q1, Q0 = (
    np.float32(c)
    for c in (1.3276472e-3, 9.675541e-3, 5.5507131e-2, 2.402212e-1, 6.9314694e-1, 1.0000001)
)
FARTHEST = np.float32(63.0)  # binary exponent; the square of 1 + 2^63 is still a float32
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
def power(t: Vector) -> Vector:
    """2^t of sixteen values between -125 and 127, to 3e-7 of itself."""
    n = simd.nearest(t)
    r = simd.subtract(t, n)
    p = simd.fma(simd.splat_f32(Q5), r, simd.splat_f32(Q4))
    p = simd.fma(p, r, simd.splat_f32(Q3))
    p = simd.fma(p, r, simd.splat_f32(Q2))
    p = simd.fma(p, r, simd.splat_f32(Q1))
    p = simd.fma(p, r, simd.splat_f32(Q0))
    return simd.scaled(p, n)


@njit(**OPTIONS)
def one_plus_exp(x: Vector) -> Vector:
    """1 + e^-x of sixteen values to 3e-7 of itself: the denominator of a sigmoid.

    e^-x is held between 2^-63 and 2^63, so that the product of two denominators is finite and
    two sigmoids can share one division. A NaN stays a NaN.
    """
    limit = simd.splat_f32(FARTHEST)
    t = simd.multiply(x, simd.splat_f32(-INVERSE_LN2))
    t = simd.within(t, simd.splat_f32(-FARTHEST), limit)
    return simd.add(power(t), simd.splat_f32(np.float32(1.0)))


@njit(**EXACT)
def shrink(x: Vector) -> Vector:
    """e^x of sixteen values, 0 at most; what is below 2^-125 is that. A NaN stays a NaN."""
    t = simd.multiply(x, simd.splat_f32(INVERSE_LN2))
    return power(
        simd.within(t, simd.splat_f32(np.float32(-125.0)), simd.splat_f32(np.float32(0.0)))
    )
