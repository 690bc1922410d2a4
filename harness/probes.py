"""Loops that are bound by one resource alone: memory, cache, multipliers, the clock.

Each takes the arrays it works on and how often to pass over them, and releases the GIL. They are
meant to reach the machine's limit, which is why a loop may look odd.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.simd import (
    OPTIONS,
    add,
    add_i32,
    dot4_nibbles,
    fma,
    load_bytes,
    load_f32,
    splat_i32,
    sum_f32,
    sum_i32,
)
from kernels.spec import Array

FUSED = 8  # multiply-adds on each value in `multiply_add`
CHAIN = 2  # cycles that one turn of `chain` takes: an addition, then an exclusive or
STEPS = 1_000  # turns in one pass of `chain`, dot products in one pass of `dots_6`


@njit(**OPTIONS)
def read(values: Array, passes: int) -> np.float32:
    """Sum over values (n,) float32, as four streams, which is what keeps most reads in flight."""
    n = values.size // 4
    first, second = values[:n], values[n : 2 * n]
    third, fourth = values[2 * n : 3 * n], values[3 * n : 4 * n]
    total = np.float32(0)
    for _ in range(passes):
        a = b = c = d = np.float32(0)
        for i in range(n):
            a += first[i]
            b += second[i]
            c += third[i]
            d += fourth[i]
        # A sum that depends on the pass keeps the compiler from doing one pass for all.
        total = total * np.float32(0.5) + (a + b + c + d)
    return total


@njit(**OPTIONS)
def copy(source: Array, target: Array, passes: int) -> None:
    """target (n,) = source (n,)."""
    for _ in range(passes):
        for i in range(source.size):
            target[i] = source[i]


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def multiply_add(values: Array, passes: int) -> None:
    """FUSED multiply-adds on each of values (n,) float32, n small enough for the first cache.

    Only contraction is allowed: reordering would let the compiler shorten the chain.
    """
    x, y = np.float32(0.999), np.float32(0.001)
    for _ in range(passes):
        for i in range(values.size):
            v = values[i]
            v = v * x + y
            v = v * x + y
            v = v * x + y
            v = v * x + y
            v = v * x + y
            v = v * x + y
            v = v * x + y
            v = v * x + y
            values[i] = v


@njit(**OPTIONS)
def fused_6(values: Array, passes: int) -> np.float32:
    """STEPS x 6 fused multiply-adds of LANES on values (16,), kept in registers, each pass.

    Six vectors of 16 hide the latency and fit the registers of machines of 128 and 256 bits.
    """
    x = load_f32(values, 0)
    a = b = c = d = e = f = x
    for _ in range(passes * STEPS):
        a, b, c = fma(x, x, a), fma(x, x, b), fma(x, x, c)
        d, e, f = fma(x, x, d), fma(x, x, e), fma(x, x, f)
    return np.float32(sum_f32(add(add(add(a, b), add(c, d)), add(e, f))))


@njit(**OPTIONS)
def fused_12(values: Array, passes: int) -> np.float32:
    """Like `fused_6` with twelve vectors, as two units of 512 bits need."""
    x = load_f32(values, 0)
    a = b = c = d = e = f = x
    g = h = i = j = k = l = x
    for _ in range(passes * STEPS):
        a, b, c = fma(x, x, a), fma(x, x, b), fma(x, x, c)
        d, e, f = fma(x, x, d), fma(x, x, e), fma(x, x, f)
        g, h, i = fma(x, x, g), fma(x, x, h), fma(x, x, i)
        j, k, l = fma(x, x, j), fma(x, x, k), fma(x, x, l)
    a = add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h)))
    return np.float32(sum_f32(add(a, add(add(i, j), add(k, l)))))


@njit(**OPTIONS)
def dots_6(small: Array, signed: Array, passes: int) -> np.int32:
    """STEPS x 6 products of bytes below 16 with signed ones, (64,) each, in registers, each pass.

    Six running sums of sixteen lanes, which fit Arm's 32 registers of four.
    """
    u, x = load_bytes(small, 0), load_bytes(signed, 0)
    a = b = c = d = e = f = splat_i32(np.int32(0))
    for _ in range(passes * STEPS):
        a, b, c = dot4_nibbles(a, u, x), dot4_nibbles(b, u, x), dot4_nibbles(c, u, x)
        d, e, f = dot4_nibbles(d, u, x), dot4_nibbles(e, u, x), dot4_nibbles(f, u, x)
    a = add_i32(add_i32(add_i32(a, b), add_i32(c, d)), add_i32(e, f))
    return np.int32(sum_i32(a))


@njit(**OPTIONS)
def dots_12(small: Array, signed: Array, passes: int) -> np.int32:
    """Like `dots_6` with twelve sums, which hide a latency of 4 cycles at three a cycle."""
    u, x = load_bytes(small, 0), load_bytes(signed, 0)
    a = b = c = d = e = f = splat_i32(np.int32(0))
    g = h = i = j = k = l = splat_i32(np.int32(0))
    for _ in range(passes * STEPS):
        a, b, c = dot4_nibbles(a, u, x), dot4_nibbles(b, u, x), dot4_nibbles(c, u, x)
        d, e, f = dot4_nibbles(d, u, x), dot4_nibbles(e, u, x), dot4_nibbles(f, u, x)
        g, h, i = dot4_nibbles(g, u, x), dot4_nibbles(h, u, x), dot4_nibbles(i, u, x)
        j, k, l = dot4_nibbles(j, u, x), dot4_nibbles(k, u, x), dot4_nibbles(l, u, x)
    a = add_i32(add_i32(add_i32(a, b), add_i32(c, d)), add_i32(add_i32(e, f), add_i32(g, h)))
    return np.int32(sum_i32(add_i32(a, add_i32(add_i32(i, j), add_i32(k, l)))))


@njit(**OPTIONS)
def dot_row(row: Array, vector: Array, passes: int) -> np.int32:
    """row (n,) times vector (n,), int8 x int8 -> int32, as the compiler sees fit."""
    total = np.int32(0)
    for _ in range(passes):
        # Any other start than 0 costs x86 its vector instructions.
        s = np.int32(0)
        for i in range(row.size):
            s = np.int32(s + np.int32(np.int32(row[i]) * np.int32(vector[i])))
        total = np.int32(total * np.int32(3) + s)
    return total


@njit(**OPTIONS)
def chain(step: int, mask: int, passes: int) -> np.int64:
    """STEPS turns of CHAIN one-cycle instructions that wait for each other, each pass.

    step and mask come from outside: a constant could be split or folded into its neighbours.
    """
    x = np.int64(1)
    for _ in range(passes * STEPS):
        x = np.int64(np.int64(x + step) ^ mask)
    return x
