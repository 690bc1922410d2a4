"""Vectors of sixteen lanes inside Numba code, written once and lowered by LLVM for any CPU.

A value of type F32, I32 (16 lanes) or BYTES (64 bytes, four for each lane) lives in registers.
LLVM splits it to the width of the machine: one 512-bit register, two of 256 bits, four of 128.
What instruction sets do differently is in lowering.py and dots.py.
"""

from __future__ import annotations

import itertools
import secrets
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.bytecode import FunctionIdentity
from numba.core.errors import TypingError
from numba.core.extending import intrinsic

from kernels import dots, expand, lowering
from kernels.lowering import BYTE, FLOAT, HALF, INT, SHORT, call, constant, splat
from kernels.lowering import LANES as LANES
from kernels.vectors import BYTES as BYTES
from kernels.vectors import F32 as F32
from kernels.vectors import I32 as I32
from kernels.vectors import Vector as Vector
from kernels.vectors import expander, loader, operation, pointer, spreader, storer

# The linker tells functions of one name and signature, such as those of a factory, by a number that
# Numba counts from 1 in every process. Cached plans of two processes that meet in a third would run
# each other's code, without a word; numbers that start anywhere do not meet.
FunctionIdentity._unique_ids = itertools.count(secrets.randbits(60))

TINY = np.float32(1e-30)  # vectors with no larger value than this are rounded to zero
# Sums may be reordered and fused; NaN and infinity keep their meaning, so a bad value is seen.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
OPTIONS = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": FASTMATH,
    "no_cfunc_wrapper": True,  # nothing calls a kernel from C
}
# Where two forms of one product must agree to the bit: a rounding to int8 that follows would turn
# a last-digit difference into a whole step.
EXACT = {**OPTIONS, "fastmath": False}
# For what only compiled code calls: Python cannot.
INNER = {**EXACT, "no_cpython_wrapper": True}
# For what is called in one place: a function of its own would be optimised again in every caller.
PART = {**OPTIONS, "inline": "always"}


# ---- memory --------------------------------------------------------------------------------

load_f32 = loader(F32, F32.llvm)
load_f16 = loader(  # sixteen float16 widened to float32
    F32, ir.VectorType(HALF, LANES), lowering.half_to_float
)
load_bf16 = loader(F32, ir.VectorType(SHORT, LANES), lowering.bfloat_to_float)
load_bytes = loader(BYTES, BYTES.llvm)
store_f32 = storer(F32)
store_i8 = storer(  # sixteen int32 narrowed to bytes
    I32, lambda b, v: b.trunc(v, ir.VectorType(BYTE, LANES))
)
store_f16 = storer(F32, lowering.float_to_half)


spread_f32 = spreader(lambda b, v: v)
spread_f16 = spreader(
    lambda b, v: b.bitcast(lowering.float_to_half(b, v), ir.VectorType(SHORT, LANES))
)
peek_f32 = loader(types.float32, FLOAT)
peek_i32 = loader(types.int32, INT)
poke_f32 = storer(types.float32)
poke_i32 = storer(types.int32)
# four bytes repeated in every lane
repeat4 = loader(BYTES, INT, lambda b, v: b.bitcast(splat(b, v, I32.llvm), BYTES.llvm))


@intrinsic(prefer_literal=True)
def quad(typing_context, array, index, j):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bytes 4j..4j+3 of the sixteen at array[index], in every lane; j is written as a number.

    As `repeat4` at index + 4j, and faster on Arm, which reads the sixteen once for all four j.
    """
    if not isinstance(j, types.IntegerLiteral) or j.literal_value not in range(4):
        raise TypingError(f"quad needs 0, 1, 2 or 3 as its last argument, got {j}")
    which = j.literal_value

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        at = pointer(context, builder, signature.args[0], args[0], args[1])
        return lowering.quad(builder, builder.bitcast(at, BYTE.as_pointer()), which)

    return BYTES(array, types.intp, j), generate


@intrinsic
def prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Ask for the cache line of array[index], to be read soon; never faults."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        at = pointer(context, builder, signature.args[0], args[0], args[1])
        lowering.prefetch(builder, at)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


expand_f32 = expander(F32, ir.Constant(F32.llvm, None))
expand_f16 = expander(  # sixteen float16 widened to float32
    F32,
    ir.Constant(ir.VectorType(SHORT, LANES), None),
    lambda b, v: lowering.half_to_float(b, b.bitcast(v, ir.VectorType(HALF, LANES))),
)
expand_biased = expander(BYTES, constant(BYTES.llvm, 128))  # bytes plus 128, so that 128 is zero
expand_nibbles = operation(  # of 64 bytes in a row; 8 is zero
    BYTES,
    (BYTES, types.int64),
    lambda b, v, m: expand.expand_register(b, v, m, constant(BYTES.llvm, 8)),
)
load_nibbles = loader(  # 64 of them, the lower half of a byte first
    BYTES, ir.VectorType(BYTE, 32), lowering.unfold_nibbles
)
peek_i64 = loader(types.int64, ir.IntType(64))
count_ones = operation(types.int64, (types.int64,), expand.count_ones)

# ---- compilation ---------------------------------------------------------------------------


@intrinsic
def stand_apart(typing_context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Keep the function that says this from being copied into its callers, for compile time."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def opaque(typing_context, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The value, no longer known to be a constant: one compiled form serves all constants."""
    plain = types.unliteral(value)
    return plain(plain), lambda context, builder, sig, args: args[0]


# ---- arithmetic ----------------------------------------------------------------------------

splat_f32 = operation(F32, (types.float32,), lambda b, v: splat(b, v, F32.llvm))
splat_i32 = operation(I32, (types.int32,), lambda b, v: splat(b, v, I32.llvm))
add = operation(F32, (F32, F32), lambda b, x, y: b.fadd(x, y))
multiply = operation(F32, (F32, F32), lambda b, x, y: b.fmul(x, y))
fma = operation(F32, (F32, F32, F32), lowering.fma)
greater = operation(  # lane by lane, the larger; a NaN is passed over
    F32, (F32, F32), lambda b, x, y: call(b, "llvm.maxnum.v16f32", F32.llvm, [x, y])
)
absolute = operation(F32, (F32,), lambda b, x: call(b, "llvm.fabs.v16f32", F32.llvm, [x]))
add_i32 = operation(I32, (I32, I32), lambda b, x, y: b.add(x, y))
nearest = operation(F32, (F32,), lambda b, x: call(b, "llvm.rint.v16f32", F32.llvm, [x]))
divide = operation(F32, (F32, F32), lambda b, x, y: b.fdiv(x, y))
subtract = operation(F32, (F32, F32), lambda b, x, y: b.fsub(x, y))


def _scaled(builder: Any, x: Any, n: Any) -> Any:
    raised = builder.shl(builder.fptosi(n, I32.llvm), constant(I32.llvm, 23))
    return builder.bitcast(builder.add(builder.bitcast(x, I32.llvm), raised), F32.llvm)


# x 2^n for whole n, by adding to the bits of the exponent, which must stay a finite number's
scaled = operation(F32, (F32, F32), _scaled)


def _first(builder: Any, x: Any, count: Any, other: Any) -> Any:
    lanes = ir.Constant(I32.llvm, list(range(LANES)))
    below = builder.icmp_signed("<", lanes, splat(builder, count, I32.llvm))
    return builder.select(below, x, other)


first = operation(F32, (F32, types.int32, F32), _first)  # x in the first `count` lanes, else other


def _within(builder: Any, x: Any, low: Any, high: Any) -> Any:
    # one after the other: x86 has an instruction for each of these two
    x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
    return builder.select(builder.fcmp_ordered("<", x, low), low, x)


within = operation(F32, (F32, F32, F32), _within)  # held between low and high; NaN stays a NaN
to_f32 = operation(F32, (I32,), lambda b, x: b.sitofp(x, F32.llvm))
round_i32 = operation(  # to nearest, ties to even
    I32,
    (F32,),
    lambda b, x: b.fptosi(call(b, "llvm.rint.v16f32", F32.llvm, [x]), I32.llvm),
)
sum_f32 = operation(
    types.float32,
    (F32,),
    lambda b, x: b.call(
        cgutils.get_or_insert_function(
            b.module,
            ir.FunctionType(FLOAT, [FLOAT, F32.llvm]),
            "llvm.vector.reduce.fadd.v16f32",
        ),
        [ir.Constant(FLOAT, 0.0), x],
        fastmath=("reassoc",),
    ),
)
largest = operation(
    types.float32, (F32,), lambda b, x: call(b, "llvm.vector.reduce.fmax.v16f32", FLOAT, [x])
)
sum_i32 = operation(
    types.int32, (I32,), lambda b, x: call(b, "llvm.vector.reduce.add.v16i32", INT, [x])
)
lane = operation(types.float32, (F32, types.intp), lambda b, x, i: b.extract_element(x, i))
set_lane = operation(
    F32, (F32, types.intp, types.float32), lambda b, x, i, v: b.insert_element(x, v, i)
)
low_nibbles = operation(BYTES, (BYTES,), lowering.low_nibbles)
high_nibbles = operation(BYTES, (BYTES,), lowering.high_nibbles)


@intrinsic(prefer_literal=True)
def crumbs(typing_context, x, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bits 2i and 2i+1 of each byte of x; i is written as a number."""
    if not isinstance(i, types.IntegerLiteral) or i.literal_value not in range(4):
        raise TypingError(f"crumbs needs 0, 1, 2 or 3 as its last argument, got {i}")
    which = i.literal_value
    return BYTES(x, i), lambda c, builder, s, args: lowering.crumbs(builder, args[0], which)


# ---- dot products: lane i of the total += sum of w[4i+j] * x[4i+j], j < 4; bytes of x are signed

dot4 = operation(I32, (I32, BYTES, BYTES), dots.dot4)  # w unsigned
dot4_nibbles = operation(I32, (I32, BYTES, BYTES), dots.dot4_nibbles)  # w in 0..15
# w holds weights plus 128, x is -127..127, and the total began with biased_start(-128 * sum of x)
dot4_biased = operation(I32, (I32, BYTES, BYTES), dots.dot4_biased)
biased_start = operation(I32, (types.int32,), dots.biased_start)


@njit(**EXACT)
def load_up_to(array: Any, at: int, count: int) -> Any:
    """array[at:] with at most `count` values, then zeros."""
    if count >= LANES:
        return load_f32(array, at)
    value = splat_f32(np.float32(0.0))
    for i in range(count):
        value = set_lane(value, i, array[at + i])
    return value


@njit(**EXACT)
def finish(value: Any, out: Any, at: int, rows: int, accumulate: bool) -> None:
    """Store the first `rows` lanes to out[at:], or add them to what is there."""
    if rows >= LANES:
        if accumulate:
            value = add(value, load_f32(out, at))
        store_f32(out, at, value)
    else:
        for i in range(rows):
            out[at + i] = lane(value, i) + (out[at + i] if accumulate else np.float32(0.0))
