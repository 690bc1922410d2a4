"""Loops that are bound by one resource alone: memory, cache, multipliers, the clock.

Each takes the arrays it works on and how often to pass over them, and releases the GIL. They are
meant to reach the machine's limit, which is why a loop may look odd.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.core.extending import intrinsic

from kernels.simd import (
    BYTES,
    I32,
    OPTIONS,
    add,
    add_i32,
    dot4,
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


def lower_signed_dot(builder: ir.IRBuilder, total: ir.Value, values: ir.Value) -> ir.Value:
    """Emit total (16 x int32) += dot products of values (64 x int8) with itself, by fours.

    One `sdot` a quarter: Arm only, and only with dotprod. `dot4` adds a correction for unsigned
    bytes to each, which would hide half of the peak.
    """
    i32, quarter = ir.IntType(32), ir.VectorType(ir.IntType(32), 4)
    sixteen = ir.VectorType(ir.IntType(8), 16)
    name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
    sdot = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(quarter, [quarter, sixteen, sixteen]), name
    )

    def take(vector: ir.Value, other: ir.Value, first: int, count: int) -> ir.Value:
        lanes = ir.Constant(ir.VectorType(i32, count), list(range(first, first + count)))
        return builder.shuffle_vector(vector, other, lanes)

    parts = []
    for i in range(4):
        bytes_ = take(values, values, 16 * i, 16)
        parts.append(builder.call(sdot, [take(total, total, 4 * i, 4), bytes_, bytes_]))
    halves = [take(parts[i], parts[i + 1], 0, 8) for i in (0, 2)]
    return take(halves[0], halves[1], 0, 16)


def _signed_dot(typing_context, total, values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return I32(I32, BYTES), lambda context, builder, sig, args: lower_signed_dot(builder, *args)


signed_dot: Any = intrinsic(_signed_dot)


@njit(**OPTIONS)
def signed_dots(values: Array, passes: int) -> np.int32:
    """STEPS x 6 `signed_dot` of values (64,) int8, which fit Arm's registers, each pass."""
    x = load_bytes(values, 0)
    a = b = c = d = e = f = splat_i32(np.int32(0))
    for _ in range(passes * STEPS):
        a, b, c = signed_dot(a, x), signed_dot(b, x), signed_dot(c, x)
        d, e, f = signed_dot(d, x), signed_dot(e, x), signed_dot(f, x)
    a = add_i32(add_i32(add_i32(a, b), add_i32(c, d)), add_i32(e, f))
    return np.int32(sum_i32(a))


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
