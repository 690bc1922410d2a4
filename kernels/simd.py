"""Vectors of sixteen lanes inside Numba code, written once and lowered by LLVM for any CPU.

A value of type F32, I32 (16 lanes) or BYTES (64 bytes, four for each lane) lives in registers.
LLVM splits it to the width of the machine: one 512-bit register, two of 256 bits, four of 128.
Only `dot4` knows instruction sets; without one it is plain arithmetic that is right everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.extending import intrinsic, models, register_model

LANES = 16
TINY = np.float32(1e-30)  # vectors with no larger value than this are rounded to zero
PLAIN = "EDGEWISE_PLAIN"  # set to 1: never use an instruction beyond LLVM's own choice
# Sums may be reordered and fused; NaN and infinity keep their meaning, so a bad value is seen.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False, "fastmath": FASTMATH}
# Where two forms of one product must agree to the bit: a rounding to int8 that follows would turn
# a last-digit difference into a whole step.
EXACT = {**OPTIONS, "fastmath": False}

_FLOAT, _HALF, _INT, _BYTE = ir.FloatType(), ir.HalfType(), ir.IntType(32), ir.IntType(8)
_SHORT, _LONG = ir.IntType(16), ir.IntType(64)


class Vector(types.Type):  # type: ignore[misc]
    """`count` values of one LLVM element type, held in registers."""

    def __init__(self, label: str, element: Any, count: int) -> None:
        self.llvm = ir.VectorType(element, count)
        super().__init__(name=f"Vector({label} x {count})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Vector) -> None:
        super().__init__(manager, numba_type, numba_type.llvm)


F32 = Vector("float32", _FLOAT, LANES)
I32 = Vector("int32", _INT, LANES)
BYTES = Vector("byte", _BYTE, 4 * LANES)


def features() -> str:
    """The CPU features Numba compiles for, as LLVM writes them, or "" when forced plain."""
    if os.environ.get(PLAIN) == "1":
        return ""
    if config.CPU_FEATURES is not None:
        return str(config.CPU_FEATURES)
    return str(llvm.get_host_cpu_features().flatten())


def has(feature: str) -> bool:
    return f"+{feature}" in features().split(",")


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    signature = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INT, 0))
    zeros = ir.Constant(ir.VectorType(_INT, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, first, zeros)


def _constant(vector: Any, value: int) -> Any:
    return ir.Constant(vector, [value] * vector.count)


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
    F32, ir.VectorType(_HALF, LANES), lambda b, v: b.fpext(v, F32.llvm)
)
load_bytes = _loader(BYTES, BYTES.llvm)
store_f32 = _storer(F32)
store_i8 = _storer(  # sixteen int32 narrowed to bytes
    I32, lambda b, v: b.trunc(v, ir.VectorType(_BYTE, LANES))
)
peek_f32 = _loader(types.float32, _FLOAT)
peek_i32 = _loader(types.int32, _INT)
poke_f32 = _storer(types.float32)
poke_i32 = _storer(types.int32)
# four bytes repeated in every lane
repeat4 = _loader(BYTES, _INT, lambda b, v: b.bitcast(_splat(b, v, I32.llvm), BYTES.llvm))

# ---- arithmetic ----------------------------------------------------------------------------

splat_f32 = _operation(F32, (types.float32,), lambda b, v: _splat(b, v, F32.llvm))
splat_i32 = _operation(I32, (types.int32,), lambda b, v: _splat(b, v, I32.llvm))
add = _operation(F32, (F32, F32), lambda b, x, y: b.fadd(x, y))
multiply = _operation(F32, (F32, F32), lambda b, x, y: b.fmul(x, y))
fma = _operation(
    F32, (F32, F32, F32), lambda b, x, y, z: _call(b, "llvm.fma.v16f32", F32.llvm, [x, y, z])
)
greater = _operation(  # lane by lane, the larger; a NaN is passed over
    F32, (F32, F32), lambda b, x, y: _call(b, "llvm.maxnum.v16f32", F32.llvm, [x, y])
)
absolute = _operation(F32, (F32,), lambda b, x: _call(b, "llvm.fabs.v16f32", F32.llvm, [x]))
add_i32 = _operation(I32, (I32, I32), lambda b, x, y: b.add(x, y))
floor = _operation(F32, (F32,), lambda b, x: _call(b, "llvm.floor.v16f32", F32.llvm, [x]))
divide = _operation(F32, (F32, F32), lambda b, x, y: b.fdiv(x, y))
subtract = _operation(F32, (F32, F32), lambda b, x, y: b.fsub(x, y))


def _power_of_two(builder: Any, n: Any) -> Any:
    """2^n for whole n in -127..128, by writing the exponent's bits."""
    bits = builder.add(builder.fptosi(n, I32.llvm), _constant(I32.llvm, 127))
    return builder.bitcast(builder.shl(bits, _constant(I32.llvm, 23)), F32.llvm)


power_of_two = _operation(F32, (F32,), _power_of_two)
within = _operation(  # lane by lane, x held between low and high; a NaN stays a NaN
    F32,
    (F32, F32, F32),
    lambda b, x, low, high: b.select(
        b.fcmp_ordered("<", x, low), low, b.select(b.fcmp_ordered(">", x, high), high, x)
    ),
)
to_f32 = _operation(F32, (I32,), lambda b, x: b.sitofp(x, F32.llvm))
round_i32 = _operation(  # to nearest, ties to even
    I32,
    (F32,),
    lambda b, x: b.fptosi(_call(b, "llvm.rint.v16f32", F32.llvm, [x]), I32.llvm),
)
sum_f32 = _operation(
    types.float32,
    (F32,),
    lambda b, x: b.call(
        cgutils.get_or_insert_function(
            b.module,
            ir.FunctionType(_FLOAT, [_FLOAT, F32.llvm]),
            "llvm.vector.reduce.fadd.v16f32",
        ),
        [ir.Constant(_FLOAT, 0.0), x],
        fastmath=("reassoc",),
    ),
)
largest = _operation(
    types.float32, (F32,), lambda b, x: _call(b, "llvm.vector.reduce.fmax.v16f32", _FLOAT, [x])
)
sum_i32 = _operation(
    types.int32, (I32,), lambda b, x: _call(b, "llvm.vector.reduce.add.v16i32", _INT, [x])
)
lane = _operation(types.float32, (F32, types.intp), lambda b, x, i: b.extract_element(x, i))
low_nibbles = _operation(BYTES, (BYTES,), lambda b, x: b.and_(x, _constant(BYTES.llvm, 15)))


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


def _high_nibbles(builder: Any, x: Any) -> Any:
    # there is no byte shift on x86: shift as 16 bits, then mask
    shorts = ir.VectorType(_SHORT, 2 * LANES)
    shifted = builder.lshr(builder.bitcast(x, shorts), _constant(shorts, 4))
    return builder.and_(builder.bitcast(shifted, BYTES.llvm), _constant(BYTES.llvm, 15))


high_nibbles = _operation(BYTES, (BYTES,), _high_nibbles)


def _dot4(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    if has("avx512vnni"):
        bytes_typed = llvm.llvm_version_info[0] >= 22  # older LLVM wants the bytes as int32 lanes
        operands = [v if bytes_typed else builder.bitcast(v, I32.llvm) for v in (unsigned, signed)]
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", I32.llvm, [total, *operands])
    if has("dotprod"):
        return _dot4_neon(builder, total, unsigned, signed)
    return _dot4_plain(builder, total, unsigned, signed)


def _dot4_neon(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Four 128-bit `sdot`: with u = s + 128, u.x = s.x + 128 sum(x), both of them signed."""
    quarter, bytes16 = ir.VectorType(_INT, 4), ir.VectorType(_BYTE, 16)
    centred = builder.xor(unsigned, _constant(BYTES.llvm, 128))
    parts = []
    for i in range(4):
        take = ir.Constant(ir.VectorType(_INT, 16), list(range(16 * i, 16 * i + 16)))
        s, x = (builder.shuffle_vector(v, v, take) for v in (centred, signed))
        four = ir.Constant(quarter.__class__(_INT, 4), list(range(4 * i, 4 * i + 4)))
        part = builder.shuffle_vector(total, total, four)
        name = "llvm.aarch64.neon.sdot.v4i32.v16i8"
        ones = _constant(bytes16, 1)
        sums = _call(builder, name, quarter, [_constant(quarter, 0), ones, x])
        part = _call(builder, name, quarter, [part, s, x])
        parts.append(builder.add(part, builder.shl(sums, _constant(quarter, 7))))
    eight = ir.Constant(ir.VectorType(_INT, 8), list(range(8)))
    halves = [builder.shuffle_vector(parts[i], parts[i + 1], eight) for i in (0, 2)]
    sixteen = ir.Constant(ir.VectorType(_INT, 16), list(range(16)))
    return builder.shuffle_vector(halves[0], halves[1], sixteen)


def _dot4_plain(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    wide = ir.VectorType(_INT, 4 * LANES)
    products = builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide))
    for i in range(4):
        every_fourth = ir.Constant(I32.llvm, [4 * lane + i for lane in range(LANES)])
        total = builder.add(total, builder.shuffle_vector(products, products, every_fourth))
    return total


# dot4(total, u, x): lane i of total += sum of u[4i+j] * x[4i+j], j < 4; u unsigned, x signed bytes
dot4 = _operation(I32, (I32, BYTES, BYTES), _dot4)
