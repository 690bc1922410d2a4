"""What code is made for, and LLVM code for what instruction sets do differently: bytes, halves.

A function gets a builder and values, and emits the best form that the CPU's features allow; the
last form of each is plain arithmetic that is right everywhere. Vectors are those of simd.py:
sixteen lanes of int32 or float32, and 64 bytes, four to a lane. Dot products are in dots.py.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, config

LANES = 16
PLAIN = "EDGEWISE_PLAIN"  # set to 1: never use an instruction beyond LLVM's own choice
CROSS = "EDGEWISE_CROSS"  # features of another CPU, whose code is emitted and not run
FOREIGN = "foreign."  # takes the place of "llvm." in what this CPU cannot select

ARM = ("aarch64", "arm64")  # every one of them has neon, whether or not it is listed

FLOAT, HALF, INT = ir.FloatType(), ir.HalfType(), ir.IntType(32)
SHORT, BYTE = ir.IntType(16), ir.IntType(8)
FLOATS, INTS, BYTES = (
    ir.VectorType(FLOAT, LANES),
    ir.VectorType(INT, LANES),
    ir.VectorType(BYTE, 4 * LANES),
)


def features() -> str:
    """The CPU features that code is made for, as LLVM writes them, or "" when forced plain."""
    if os.environ.get(PLAIN) == "1":
        return ""
    if CROSS in os.environ:
        return os.environ[CROSS]
    found = config.CPU_FEATURES
    found = str(llvm.get_host_cpu_features().flatten() if found is None else found)
    return f"{found},+neon" if llvm.get_process_triple().startswith(ARM) else found


def has(*wanted: str) -> bool:
    """Whether the CPU has one of these features."""
    return not {f"+{feature}" for feature in wanted}.isdisjoint(features().split(","))


def call(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    """Call an intrinsic; one of another CPU by a name that stands for it until it is emitted."""
    if CROSS in os.environ and name.startswith(("llvm.x86.", "llvm.aarch64.")):
        name = FOREIGN + name.removeprefix("llvm.")
        # Numba links what it compiles; it is never called
        llvm.add_symbol(name, ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value)
    signature = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def splat(builder: Any, value: Any, vector: Any) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(INT, 0))
    return pick(builder, first, [0] * vector.count)


def constant(vector: Any, value: int) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def pick(builder: Any, vector: Any, lanes: Sequence[int], other: Any = None) -> Any:
    """These lanes of a vector, or of two counted as one."""
    mask = ir.Constant(ir.VectorType(INT, len(lanes)), list(lanes))
    return builder.shuffle_vector(vector, vector if other is None else other, mask)


def cut(builder: Any, vector: Any, count: int) -> list[Any]:
    """The vector as `count` equal parts."""
    size = vector.type.count // count
    return [pick(builder, vector, range(i * size, (i + 1) * size)) for i in range(count)]


def join(builder: Any, parts: Sequence[Any]) -> Any:
    """Parts as one vector again; their number is a power of two."""
    while len(parts) > 1:
        both = range(2 * parts[0].type.count)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [pick(builder, low, both, high) for low, high in pairs]
    return parts[0]


# ---- bytes ---------------------------------------------------------------------------------------


def low_nibbles(builder: Any, x: Any) -> Any:
    return builder.and_(x, constant(BYTES, 15))


def high_nibbles(builder: Any, x: Any) -> Any:
    if has("neon"):
        return builder.lshr(x, constant(BYTES, 4))
    # there is no byte shift on x86: shift as 16 bits, then mask
    shorts = ir.VectorType(SHORT, 2 * LANES)
    shifted = builder.lshr(builder.bitcast(x, shorts), constant(shorts, 4))
    return low_nibbles(builder, builder.bitcast(shifted, BYTES))


def crumbs(builder: Any, x: Any, i: int) -> Any:
    """Bits 2i and 2i+1 of each byte."""
    three = constant(BYTES, 3)
    if has("neon"):
        return builder.and_(builder.lshr(x, constant(BYTES, 2 * i)), three)
    # as for nibbles; what is shifted in from a neighbour is masked away
    shorts = ir.VectorType(SHORT, 2 * LANES)
    shifted = builder.lshr(builder.bitcast(x, shorts), constant(shorts, 2 * i))
    return builder.and_(builder.bitcast(shifted, BYTES), three)


def unfold_nibbles(builder: Any, folded: Any) -> Any:
    """32 bytes -> 64 of 0..15, the lower half of each first."""
    shorts = ir.VectorType(SHORT, 32)
    wide = builder.zext(folded, shorts)
    both = builder.or_(wide, builder.shl(wide, constant(shorts, 4)))
    return builder.bitcast(builder.and_(both, constant(shorts, 0x0F0F)), BYTES)


def quad(builder: Any, at: Any, j: int) -> Any:
    """Bytes 4j..4j+3 of the sixteen at a byte pointer, in every lane.

    Arm multiplies by one lane of a register, so all sixteen are read at once; x86 repeats four
    bytes as it reads them.
    """
    if has("neon"):
        four = ir.VectorType(INT, 4)
        lanes = builder.load(builder.bitcast(at, four.as_pointer()), align=1)
        return builder.bitcast(pick(builder, lanes, [j] * LANES), BYTES)
    place = builder.gep(at, [ir.Constant(INT, 4 * j)])
    return builder.bitcast(
        splat(builder, builder.load(builder.bitcast(place, INT.as_pointer()), align=1), INTS),
        BYTES,
    )


# ---- half floats -------------------------------------------------------------------------------


def half_to_float(builder: Any, halves: Any) -> Any:
    """float16 widened to float32, exactly."""
    if has("f16c", "neon"):
        return builder.fpext(halves, FLOATS)
    # LLVM would call a function of a library that Numba does not load, so write the bits: move
    # exponent and fraction into place, and multiply by 2^112 to mend the exponent's bias.
    bits = builder.zext(builder.bitcast(halves, ir.VectorType(SHORT, LANES)), INTS)
    magnitude = builder.shl(builder.and_(bits, constant(INTS, 0x7FFF)), constant(INTS, 13))
    scaled = builder.fmul(
        builder.bitcast(magnitude, FLOATS), builder.bitcast(constant(INTS, 0x77800000), FLOATS)
    )
    special = builder.icmp_unsigned(">=", magnitude, constant(INTS, 0x7C00 << 13))
    kept = builder.select(
        special,
        builder.or_(magnitude, constant(INTS, 0x7F800000)),
        builder.bitcast(scaled, INTS),
    )
    sign = builder.shl(builder.and_(bits, constant(INTS, 0x8000)), constant(INTS, 16))
    return builder.bitcast(builder.or_(kept, sign), FLOATS)


def float_to_half(builder: Any, floats: Any) -> Any:
    """float32 rounded to float16, ties to even; a NaN stays one."""
    halves = ir.VectorType(HALF, LANES)
    if has("f16c", "neon"):
        return builder.fptrunc(floats, halves)
    # as for half_to_float: write the bits. Adding a half lets the float unit round denormals.
    bits = builder.bitcast(floats, INTS)
    magnitude = builder.and_(bits, constant(INTS, 0x7FFFFFFF))
    odd = builder.and_(builder.lshr(magnitude, constant(INTS, 13)), constant(INTS, 1))
    rebased = builder.add(magnitude, constant(INTS, ((15 - 127) << 23) + 0xFFF & 0xFFFFFFFF))
    normal = builder.lshr(builder.add(rebased, odd), constant(INTS, 13))
    half = constant(INTS, 0x3F000000)
    shifted = builder.fadd(builder.bitcast(magnitude, FLOATS), builder.bitcast(half, FLOATS))
    small = builder.sub(builder.bitcast(shifted, INTS), half)
    nan = builder.icmp_unsigned(">", magnitude, constant(INTS, 0x7F800000))
    special = builder.select(nan, constant(INTS, 0x7E00), constant(INTS, 0x7C00))
    found = builder.select(
        builder.icmp_unsigned("<", magnitude, constant(INTS, 0x38800000)), small, normal
    )
    large = builder.icmp_unsigned(">=", magnitude, constant(INTS, 0x47800000))
    found = builder.select(large, special, found)
    sign = builder.and_(builder.lshr(bits, constant(INTS, 16)), constant(INTS, 0x8000))
    short = builder.trunc(builder.or_(found, sign), ir.VectorType(SHORT, LANES))
    return builder.bitcast(short, halves)


def bfloat_to_float(builder: Any, halves: Any) -> Any:
    """bfloat16, the upper halves of float32, widened."""
    bits = builder.shl(builder.zext(halves, INTS), constant(INTS, 16))
    return builder.bitcast(bits, FLOATS)


def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return call(builder, "llvm.fma.v16f32", FLOATS, [x, y, z])


def prefetch(builder: Any, at: Any) -> None:
    """Ask for the cache line at a pointer, to be read soon; never faults."""
    kinds = ir.FunctionType(ir.VoidType(), [at.type, INT, INT, INT])
    function = cgutils.get_or_insert_function(builder.module, kinds, "llvm.prefetch.p0")
    read, to_level_2, data = INT(0), INT(2), INT(1)
    builder.call(function, [at, read, to_level_2, data])
