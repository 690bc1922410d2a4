"""LLVM code that spreads values stored without their zeros over the lanes a mask names.

AVX-512        vpexpandd for 32 bits; with VBMI2 also vpexpandw and vpexpandb
SSSE3, NEON    pshufb, tbl: a table lookup by eight bits of the mask, or four where values are wide
else           a branch a lane, as LLVM lowers a masked load
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from kernels.lowering import BYTE, INT, call, has, join, pick

LONG = ir.IntType(64)
SIXTEEN = ir.VectorType(BYTE, 16)
ABSENT = 255  # a place no lookup finds


def expand(builder: Any, at: Any, mask: Any, absent: Any) -> Any:
    """Vector like `absent`, whose lanes under the mask hold the values at a byte pointer in order.

    mask: int64, bit i for lane i; absent: what the other lanes hold. Up to 64 bytes are read.
    """
    vector = absent.type
    size = _bytes_of(vector.element)
    if has("avx512f") and (size == 4 or has("avx512vbmi2")):
        return _register(builder, _apart(builder, at, vector), mask, absent)
    if has("ssse3", "neon"):
        return _lookup(builder, at, mask, absent, size)
    return _masked_load(builder, at, mask, absent)


def expand_register(builder: Any, packed: Any, mask: Any, absent: Any) -> Any:
    """As `expand`, of 64 bytes that are in a register already."""
    if has("avx512vbmi2"):
        return _register(builder, packed, mask, absent)
    room = cgutils.alloca_once(builder, packed.type)
    builder.store(packed, room, align=1)
    return expand(builder, builder.bitcast(room, BYTE.as_pointer()), mask, absent)


def count_ones(builder: Any, mask: Any) -> Any:
    return call(builder, "llvm.ctpop.i64", LONG, [mask])


def _apart(builder: Any, at: Any, vector: Any) -> Any:
    """A vector read by an instruction of its own.

    Folded into the vpexpand, the read is less than half as fast from memory (int8 with half of the
    weights stored, one core of an EPYC 9004: 22e9 weights a second, and 55e9 when kept apart).
    """
    value = builder.load(builder.bitcast(at, vector.as_pointer()), align=1)
    nothing = ir.InlineAsm(ir.FunctionType(vector, [vector]), "", "=v,0", side_effect=False)
    return builder.call(nothing, [value])


def _register(builder: Any, packed: Any, mask: Any, absent: Any) -> Any:
    bits = _bits(builder, mask, packed.type.count)
    name = f"llvm.x86.avx512.mask.expand.{_shape(packed.type)}"
    return call(builder, name, packed.type, [packed, absent, bits])


def _shape(vector: Any) -> str:
    """As names of intrinsics end: v64i8."""
    element = {4: "f32", 2: "i16", 1: "i8"}[_bytes_of(vector.element)]
    return f"v{vector.count}{element}"


def _masked_load(builder: Any, at: Any, mask: Any, absent: Any) -> Any:
    vector = absent.type
    bits = _bits(builder, mask, vector.count)
    name = f"llvm.masked.expandload.{_shape(vector)}"
    place = builder.bitcast(at, vector.element.as_pointer())
    return call(builder, name, vector, [place, bits, absent])


def _lookup(builder: Any, at: Any, mask: Any, absent: Any, size: int) -> Any:
    """Sixteen bytes at a time, or eight lanes where sixteen would want a table of 65536."""
    vector = absent.type
    lanes = min(8, 16 // size)  # of one lookup
    table, field = _table(builder, size, lanes), LONG(2**lanes - 1)
    if vector.count < 64:
        mask = builder.and_(mask, LONG(2**vector.count - 1))
    before = _before(builder, mask, lanes)
    fill = builder.bitcast(absent, ir.VectorType(BYTE, vector.count * size))
    parts = []
    for first in range(0, vector.count, lanes):
        some, passed = (
            builder.and_(builder.lshr(bits, LONG(first)), field) for bits in (mask, before)
        )
        entry = builder.gep(table, [INT(0), some])
        places = builder.load(builder.bitcast(entry, SIXTEEN.as_pointer()), align=1)
        here = builder.gep(at, [builder.mul(passed, LONG(size))])
        packed = builder.load(builder.bitcast(here, SIXTEEN.as_pointer()), align=1)
        other = pick(builder, fill, [first * size + i % (lanes * size) for i in range(16)])
        found = _shuffle(builder, packed, places, other)
        parts.append(pick(builder, found, range(lanes * size)))
    return builder.bitcast(join(builder, parts), vector)


def _before(builder: Any, mask: Any, lanes: int) -> Any:
    """In each field of `lanes` bits, how many bits are set in the fields below it.

    Sums within fields side by side, then over all lower ones by one product.
    """
    pairs = _masked(builder, builder.lshr(mask, LONG(1)), 0x55)
    counts = builder.sub(mask, pairs)
    counts = builder.add(
        _masked(builder, counts, 0x33), _masked(builder, builder.lshr(counts, LONG(2)), 0x33)
    )
    if lanes == 8:
        counts = _masked(builder, builder.add(counts, builder.lshr(counts, LONG(4))), 0x0F)
    ones = 0x1111111111111111 if lanes == 4 else 0x0101010101010101
    return builder.shl(builder.mul(counts, LONG(ones)), LONG(lanes))


def _masked(builder: Any, value: Any, byte: int) -> Any:
    return builder.and_(value, LONG(byte * 0x0101010101010101))


def _shuffle(builder: Any, values: Any, places: Any, other: Any) -> Any:
    """The bytes of `values` at `places`, and of `other` where a place is ABSENT."""
    if has("neon"):
        return call(builder, "llvm.aarch64.neon.tbx1.v16i8", SIXTEEN, [other, values, places])
    found = call(builder, "llvm.x86.ssse3.pshuf.b.128", SIXTEEN, [values, places])
    absent = builder.icmp_signed("<", places, ir.Constant(SIXTEEN, None))
    return builder.select(absent, other, found)


def _table(builder: Any, size: int, lanes: int) -> Any:
    """Entry m: for each of sixteen bytes of a result, the byte it comes from when m is the mask."""
    entries = []
    for mask in range(2**lanes):
        places, seen = [ABSENT] * 16, 0
        for lane in range(lanes):
            if mask >> lane & 1:
                places[lane * size : (lane + 1) * size] = range(seen * size, (seen + 1) * size)
                seen += 1
        entries.append(ir.Constant(SIXTEEN, places))
    kind = ir.ArrayType(SIXTEEN, len(entries))
    return cgutils.global_constant(builder, f"expand_{size}_{lanes}", ir.Constant(kind, entries))


def _bits(builder: Any, mask: Any, count: int) -> Any:
    narrow = mask if count == 64 else builder.trunc(mask, ir.IntType(count))
    return builder.bitcast(narrow, ir.VectorType(ir.IntType(1), count))


def _bytes_of(element: Any) -> int:
    return {"float": 4, "i16": 2, "i8": 1}[str(element)]
