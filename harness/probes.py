"""Loops that are bound by one resource alone: memory, cache, multipliers, the clock.

Each takes the arrays it works on and how often to pass over them, and releases the GIL. They are
meant to reach the machine's limit, which is why a loop may look odd.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.simd import OPTIONS, add_i32, dot4, load_bytes, splat_i32, sum_i32
from kernels.spec import Array

FUSED = 16  # multiply-adds on each value in `multiply_add`
CHAIN = 2  # cycles that one turn of `chain` takes: an addition, then an exclusive or
STEPS = 1_000  # turns in one pass of `chain`, dot products in one pass of `dots`
DOTS = 12  # enough running sums to hide a latency of 4 cycles at three a cycle


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
def dots(unsigned: Array, signed: Array, passes: int) -> np.int32:
    """STEPS x DOTS products of unsigned (64,) and signed (64,) bytes in registers, each pass."""
    u, x = load_bytes(unsigned, 0), load_bytes(signed, 0)
    a = b = c = d = e = f = splat_i32(np.int32(0))
    g = h = i = j = k = l = splat_i32(np.int32(0))
    for _ in range(passes * STEPS):
        a, b, c = dot4(a, u, x), dot4(b, u, x), dot4(c, u, x)
        d, e, f = dot4(d, u, x), dot4(e, u, x), dot4(f, u, x)
        g, h, i = dot4(g, u, x), dot4(h, u, x), dot4(i, u, x)
        j, k, l = dot4(j, u, x), dot4(k, u, x), dot4(l, u, x)
    a = add_i32(add_i32(add_i32(a, b), add_i32(c, d)), add_i32(add_i32(e, f), add_i32(g, h)))
    return np.int32(sum_i32(add_i32(a, add_i32(add_i32(i, j), add_i32(k, l)))))


@njit(**OPTIONS)
def dot_row(rows: Array, vector: Array, passes: int) -> np.int32:
    """The first of rows (4,n) times vector (n,), int8 x int8 -> int32."""
    total, row = np.int32(0), rows[0]
    for turn in range(passes):
        s = np.int32(turn)
        for i in range(vector.size):
            s = np.int32(s + np.int32(np.int32(row[i]) * np.int32(vector[i])))
        total = np.int32(total ^ s)
    return total


@njit(**OPTIONS)
def dot_rows(rows: Array, vector: Array, passes: int) -> np.int32:
    """All of rows (4,n) times vector (n,), int8 x int8 -> int32; the vector is loaded once."""
    total = np.int32(0)
    first, second, third, fourth = rows[0], rows[1], rows[2], rows[3]
    for turn in range(passes):
        a = b = c = d = np.int32(turn)
        for i in range(vector.size):
            x = np.int32(vector[i])
            a = np.int32(a + np.int32(np.int32(first[i]) * x))
            b = np.int32(b + np.int32(np.int32(second[i]) * x))
            c = np.int32(c + np.int32(np.int32(third[i]) * x))
            d = np.int32(d + np.int32(np.int32(fourth[i]) * x))
        total = np.int32(total ^ a ^ b ^ c ^ d)
    return total


@njit(**OPTIONS)
def chain(passes: int) -> np.int64:
    """STEPS turns of CHAIN one-cycle instructions that wait for each other, each pass."""
    x = np.int64(1)
    mask = np.int64(passes)
    for i in range(passes * STEPS):
        x = (x + i) ^ mask
    return x
