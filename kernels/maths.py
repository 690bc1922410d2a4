"""Scalar functions that LLVM turns into vector code: exp, sigmoid, SiLU in float32."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.simd import OPTIONS


@njit(**OPTIONS)
def exp(x: np.float32) -> np.float32:
    """e^x to 2e-7 relative, as 2^n p(r) with a degree-5 polynomial on |r| <= ln(2)/2.

    Saturates outside -87..88, where float32 under- and overflows; a NaN stays a NaN.
    Coefficients: Cephes `expf`, S. Moshier 1992.
    """
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    x = np.float32(88.0) if x > np.float32(88.0) else x
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return p * power.view(np.float32)


@njit(**OPTIONS)
def sigmoid(x: np.float32) -> np.float32:
    return np.float32(1.0) / (np.float32(1.0) + exp(-x))


@njit(**OPTIONS)
def silu(x: np.float32) -> np.float32:
    return x * sigmoid(x)
