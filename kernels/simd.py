"""Vectors of sixteen lanes inside Numba code, written once and lowered by LLVM for any CPU.

A value of type F32, I32 (16 lanes) or BYTES (64 bytes, four for each lane) lives in registers.
LLVM splits it to the width of the machine: one 512-bit register, two of 256 bits, four of 128.
What instruction sets do differently is in lowering.py and dots.py.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.bytecode import FunctionIdentity
from numba.core.errors import TypingError
from numba.core.extending import intrinsic, models, register_model

from kernels import dots, expand, lowering
from kernels.lowering import BYTE, FLOAT, HALF, INT, SHORT, call, constant, splat
from kernels.lowering import LANES as LANES

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


class Vector(types.Type):  # type: ignore[misc]
    """`count` values of one LLVM element type, held in registers."""

    def __init__(self, label: str, element: Any, count: int) -> None:
        self.llvm = ir.VectorType(element, count)
        super().__init__(name=f"Vector({label} x {count})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Vector) -> None:
        super().__init__(manager, numba_type, numba_type.llvm)


F32 = Vector("float32", FLOAT, LANES)
I32 = Vector("int32", INT, LANES)
BYTES = Vector("byte", BYTE, 4 * LANES)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _loader(result: Any, memory: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    """load(array, index): `memory` read at array[index], index in the array's own elements."""

    @intrinsic
    def load(typing_context, array, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            at = _pointer(context, builder, signature.args[0], args[0], args[1])
            value = builder.load(builder.bitcast(at, memory.as_pointer()), align=1)
            return convert(builder, value) if convert else value

        return result(array, types.intp), generate

    return load


def _storer(value_type: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    """store(array, index, value), unaligned."""

    @intrinsic
    def store(typing_context, array, index, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            at = _pointer(context, builder, signature.args[0], args[0], args[1])
            stored = convert(builder, args[2]) if convert else args[2]
            builder.store(stored, builder.bitcast(at, stored.type.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(array, types.intp, value_type), generate

    return store


def _operation(result: Any, operands: tuple[Any, ...], lower: Callable[..., Any]) -> Any:
    """A function of register values; `lower(builder, *values)` emits it."""
    if len(operands) == 1:

        @intrinsic
        def unary(typing_context, a):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return result(*operands), lambda context, builder, sig, args: lower(builder, *args)

        return unary
    if len(operands) == 2:

        @intrinsic
        def binary(typing_context, a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return result(*operands), lambda context, builder, sig, args: lower(builder, *args)

        return binary

    @intrinsic
    def ternary(typing_context, a, b, c):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return result(*operands), lambda context, builder, sig, args: lower(builder, *args)

    return ternary


# ---- memory --------------------------------------------------------------------------------

load_f32 = _loader(F32, F32.llvm)
load_f16 = _loader(  # sixteen float16 widened to float32
    F32, ir.VectorType(HALF, LANES), lowering.half_to_float
)
load_bf16 = _loader(F32, ir.VectorType(SHORT, LANES), lowering.bfloat_to_float)
load_bytes = _loader(BYTES, BYTES.llvm)
store_f32 = _storer(F32)
store_i8 = _storer(  # sixteen int32 narrowed to bytes
    I32, lambda b, v: b.trunc(v, ir.VectorType(BYTE, LANES))
)
store_f16 = _storer(F32, lowering.float_to_half)


def _spreader(convert: Callable[[Any, Any], Any]) -> Any:
    """spread(array, index, stride, value): sixteen elements, `stride` places apart."""

    @intrinsic
    def spread(typing_context, array, index, stride, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            elements, place = convert(builder, args[3]), args[1]
            for i in range(LANES):
                at = _pointer(context, builder, signature.args[0], args[0], place)
                element = builder.extract_element(elements, INT(i))
                builder.store(element, builder.bitcast(at, element.type.as_pointer()), align=1)
                place = builder.add(place, args[2])
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, F32), generate

    return spread


spread_f32 = _spreader(lambda b, v: v)
spread_f16 = _spreader(
    lambda b, v: b.bitcast(lowering.float_to_half(b, v), ir.VectorType(SHORT, LANES))
)
peek_f32 = _loader(types.float32, FLOAT)
peek_i32 = _loader(types.int32, INT)
poke_f32 = _storer(types.float32)
poke_i32 = _storer(types.int32)
# four bytes repeated in every lane
repeat4 = _loader(BYTES, INT, lambda b, v: b.bitcast(splat(b, v, I32.llvm), BYTES.llvm))


@intrinsic(prefer_literal=True)
def quad(typing_context, array, index, j):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bytes 4j..4j+3 of the sixteen at array[index], in every lane; j is written as a number.

    As `repeat4` at index + 4j, and faster on Arm, which reads the sixteen once for all four j.
    """
    if not isinstance(j, types.IntegerLiteral) or j.literal_value not in range(4):
        raise TypingError(f"quad needs 0, 1, 2 or 3 as its last argument, got {j}")
    which = j.literal_value

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        return lowering.quad(builder, builder.bitcast(at, BYTE.as_pointer()), which)

    return BYTES(array, types.intp, j), generate


@intrinsic
def prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Ask for the cache line of array[index], to be read soon; never faults."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        lowering.prefetch(builder, at)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _expander(result: Any, absent: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    """expand(array, index, mask): values stored in a row at array[index], in the lanes of a mask.

    mask: int64, of which the lowest bits count, one a lane; other lanes are `absent`.
    """

    @intrinsic
    def load(typing_context, array, index, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            at = _pointer(context, builder, signature.args[0], args[0], args[1])
            value = expand.expand(builder, builder.bitcast(at, BYTE.as_pointer()), args[2], absent)
            return convert(builder, value) if convert else value

        return result(array, types.intp, types.int64), generate

    return load


expand_f32 = _expander(F32, ir.Constant(F32.llvm, None))
expand_f16 = _expander(  # sixteen float16 widened to float32
    F32,
    ir.Constant(ir.VectorType(SHORT, LANES), None),
    lambda b, v: lowering.half_to_float(b, b.bitcast(v, ir.VectorType(HALF, LANES))),
)
expand_biased = _expander(BYTES, constant(BYTES.llvm, 128))  # bytes plus 128, so that 128 is zero
expand_nibbles = _operation(  # of 64 bytes in a row; 8 is zero
    BYTES,
    (BYTES, types.int64),
    lambda b, v, m: expand.expand_register(b, v, m, constant(BYTES.llvm, 8)),
)
load_nibbles = _loader(  # 64 of them, the lower half of a byte first
    BYTES, ir.VectorType(BYTE, 32), lowering.unfold_nibbles
)
peek_i64 = _loader(types.int64, ir.IntType(64))
count_ones = _operation(types.int64, (types.int64,), expand.count_ones)

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

splat_f32 = _operation(F32, (types.float32,), lambda b, v: splat(b, v, F32.llvm))
splat_i32 = _operation(I32, (types.int32,), lambda b, v: splat(b, v, I32.llvm))
add = _operation(F32, (F32, F32), lambda b, x, y: b.fadd(x, y))
multiply = _operation(F32, (F32, F32), lambda b, x, y: b.fmul(x, y))
fma = _operation(F32, (F32, F32, F32), lowering.fma)
greater = _operation(  # lane by lane, the larger; a NaN is passed over
    F32, (F32, F32), lambda b, x, y: call(b, "llvm.maxnum.v16f32", F32.llvm, [x, y])
)
absolute = _operation(F32, (F32,), lambda b, x: call(b, "llvm.fabs.v16f32", F32.llvm, [x]))
add_i32 = _operation(I32, (I32, I32), lambda b, x, y: b.add(x, y))
nearest = _operation(F32, (F32,), lambda b, x: call(b, "llvm.rint.v16f32", F32.llvm, [x]))
divide = _operation(F32, (F32, F32), lambda b, x, y: b.fdiv(x, y))
subtract = _operation(F32, (F32, F32), lambda b, x, y: b.fsub(x, y))


def _scaled(builder: Any, x: Any, n: Any) -> Any:
    raised = builder.shl(builder.fptosi(n, I32.llvm), constant(I32.llvm, 23))
    return builder.bitcast(builder.add(builder.bitcast(x, I32.llvm), raised), F32.llvm)


# x 2^n for whole n, by adding to the bits of the exponent, which must stay a finite number's
scaled = _operation(F32, (F32, F32), _scaled)


def _first(builder: Any, x: Any, count: Any, other: Any) -> Any:
    lanes = ir.Constant(I32.llvm, list(range(LANES)))
    below = builder.icmp_signed("<", lanes, splat(builder, count, I32.llvm))
    return builder.select(below, x, other)


first = _operation(F32, (F32, types.int32, F32), _first)  # x in the first `count` lanes, else other


def _within(builder: Any, x: Any, low: Any, high: Any) -> Any:
    # one after the other: x86 has an instruction for each of these two
    x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
    return builder.select(builder.fcmp_ordered("<", x, low), low, x)


within = _operation(F32, (F32, F32, F32), _within)  # held between low and high; NaN stays a NaN
to_f32 = _operation(F32, (I32,), lambda b, x: b.sitofp(x, F32.llvm))
round_i32 = _operation(  # to nearest, ties to even
    I32,
    (F32,),
    lambda b, x: b.fptosi(call(b, "llvm.rint.v16f32", F32.llvm, [x]), I32.llvm),
)
sum_f32 = _operation(
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
largest = _operation(
    types.float32, (F32,), lambda b, x: call(b, "llvm.vector.reduce.fmax.v16f32", FLOAT, [x])
)
sum_i32 = _operation(
    types.int32, (I32,), lambda b, x: call(b, "llvm.vector.reduce.add.v16i32", INT, [x])
)
lane = _operation(types.float32, (F32, types.intp), lambda b, x, i: b.extract_element(x, i))
set_lane = _operation(
    F32, (F32, types.intp, types.float32), lambda b, x, i, v: b.insert_element(x, v, i)
)
low_nibbles = _operation(BYTES, (BYTES,), lowering.low_nibbles)
high_nibbles = _operation(BYTES, (BYTES,), lowering.high_nibbles)

# ---- dot products: lane i of the total += sum of w[4i+j] * x[4i+j], j < 4; bytes of x are signed

dot4 = _operation(I32, (I32, BYTES, BYTES), dots.dot4)  # w unsigned
dot4_nibbles = _operation(I32, (I32, BYTES, BYTES), dots.dot4_nibbles)  # w in 0..15
# w holds weights plus 128, x is -127..127, and the total began with biased_start(-128 * sum of x)
dot4_biased = _operation(I32, (I32, BYTES, BYTES), dots.dot4_biased)
biased_start = _operation(I32, (types.int32,), dots.biased_start)


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
