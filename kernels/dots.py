"""Dot products of bytes, by instruction set: lane i of a total += sum of w[4i+j] * x[4i+j], j < 4.

AVX-512 VNNI, AVX-VNNI   vpdpbusd     unsigned times signed
AVX2                     vpmaddwd     16 bits, exact; vpmaddubsw only for nibbles, it saturates
Arm with dotprod         sdot         signed times signed; usdot where there is i8mm
other 64-bit Arm         smull, addp, saddlp
else                     32-bit products, as LLVM likes
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from kernels.lowering import (
    BYTES,
    INT,
    INTS,
    LANES,
    SHORT,
    call,
    constant,
    cut,
    has,
    join,
    pick,
    splat,
)


def dot4(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Any unsigned bytes against any signed ones."""
    if has("avx512vnni", "avxvnni"):
        return _vnni(builder, total, unsigned, signed)
    if has("avx2"):
        return _by_parts(builder, _even_and_odd, 2, total, unsigned, signed)
    if has("i8mm"):
        return _by_parts(builder, _usdot, 4, total, unsigned, signed)
    if has("neon"):
        return _by_parts(builder, _pairs_of_products, 4, total, unsigned, signed)
    return _plain(builder, total, unsigned, signed)


def dot4_nibbles(builder: Any, total: Any, nibbles: Any, signed: Any) -> Any:
    """Bytes 0..15, which are the same signed and unsigned, against any signed ones."""
    if has("avx512vnni", "avxvnni"):
        return _vnni(builder, total, nibbles, signed)
    if has("avx2"):
        return _by_parts(builder, _maddubs, 2, total, nibbles, signed)
    return _signed(builder, total, nibbles, signed)


def dot4_biased(builder: Any, total: Any, biased: Any, signed: Any) -> Any:
    """Weights that are stored plus 128, from a total that began with `biased_start`.

    The signed bytes are -127..127, so that two products fit 16 bits.
    """
    if not _centres():
        return dot4(builder, total, biased, signed)
    return _signed(builder, total, builder.xor(biased, constant(BYTES, 128)), signed)


def biased_start(builder: Any, surplus: Any) -> Any:
    """What a total of `dot4_biased` begins with; surplus is -128 times the sum of its x."""
    return constant(INTS, 0) if _centres() else splat(builder, surplus, INTS)


def _centres() -> bool:
    """Whether 128 is taken off each weight: instructions for two signed operands want that."""
    return has("neon")


def _signed(builder: Any, total: Any, w: Any, x: Any) -> Any:
    """Signed bytes; w and x are not both -128."""
    if has("dotprod"):
        return _by_parts(builder, _sdot, 4, total, w, x)
    if has("neon"):
        return _by_parts(builder, _smull, 4, total, w, x)
    return _plain(builder, total, w, x)


def _by_parts(builder: Any, form: Any, count: int, *vectors: Any) -> Any:
    """`form` on each of `count` parts of a total and its operands."""
    parts = zip(*(cut(builder, vector, count) for vector in vectors), strict=True)
    return join(builder, [form(builder, *three) for three in parts])


def _vnni(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """One `vpdpbusd` of 512 bits, or two of 256."""
    if has("avx512vnni"):
        return _dpbusd(builder, total, unsigned, signed)
    return _by_parts(builder, _dpbusd, 2, total, unsigned, signed)


def _dpbusd(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    bytes_typed = llvm.llvm_version_info[0] >= 22  # older LLVM wants the bytes as int32 lanes
    operands = [v if bytes_typed else builder.bitcast(v, total.type) for v in (unsigned, signed)]
    name = f"llvm.x86.avx512.vpdpbusd.{32 * total.type.count}"
    return call(builder, name, total.type, [total, *operands])


def _even_and_odd(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Two `vpmaddwd`, on the bytes at even and at odd places widened to 16 bits: always exact."""
    shorts, eight = ir.VectorType(SHORT, 16), constant(ir.VectorType(SHORT, 16), 8)
    u, x = (builder.bitcast(v, shorts) for v in (unsigned, signed))
    even = builder.and_(u, constant(shorts, 255)), builder.ashr(builder.shl(x, eight), eight)
    odd = builder.lshr(u, eight), builder.ashr(x, eight)
    for pair in (even, odd):
        products = call(builder, "llvm.x86.avx2.pmadd.wd", total.type, pair)
        total = builder.add(total, products)
    return total


def _maddubs(builder: Any, total: Any, nibbles: Any, signed: Any) -> Any:
    """`vpmaddubsw`, which keeps 16 bits of two products: 2 * 15 * 128 fits."""
    shorts = ir.VectorType(SHORT, 16)
    pairs = call(builder, "llvm.x86.avx2.pmadd.ub.sw", shorts, [nibbles, signed])
    ones = constant(shorts, 1)
    return builder.add(total, call(builder, "llvm.x86.avx2.pmadd.wd", total.type, [pairs, ones]))


def _sdot(builder: Any, total: Any, w: Any, x: Any) -> Any:
    return call(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", total.type, [total, w, x])


def _usdot(builder: Any, total: Any, w: Any, x: Any) -> Any:
    return call(builder, "llvm.aarch64.neon.usdot.v4i32.v16i8", total.type, [total, w, x])


def _smull(builder: Any, total: Any, w: Any, x: Any) -> Any:
    """`smull` and `smull2`, sums of two in 16 bits, and those added to the total in 32."""
    shorts = ir.VectorType(SHORT, 8)
    halves = zip(cut(builder, w, 2), cut(builder, x, 2), strict=True)
    products = [call(builder, "llvm.aarch64.neon.smull.v8i16", shorts, pair) for pair in halves]
    pairs = call(builder, "llvm.aarch64.neon.addp.v8i16", shorts, products)
    name = "llvm.aarch64.neon.saddlp.v4i32.v8i16"
    return builder.add(total, call(builder, name, total.type, [pairs]))


def _pairs_of_products(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Products in 16 bits, which hold 255 * -128; their sums of two in 32 already."""
    shorts, sums = ir.VectorType(SHORT, 8), []
    for u, x in zip(cut(builder, unsigned, 2), cut(builder, signed, 2), strict=True):
        products = builder.mul(builder.zext(u, shorts), builder.sext(x, shorts))
        name = "llvm.aarch64.neon.saddlp.v4i32.v8i16"
        sums.append(call(builder, name, total.type, [products]))
    return builder.add(total, call(builder, "llvm.aarch64.neon.addp.v4i32", total.type, sums))


def _plain(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    wide = ir.VectorType(INT, 4 * LANES)
    products = builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide))
    for i in range(4):
        total = builder.add(total, pick(builder, products, range(i, 4 * LANES, 4)))
    return total
