"""What grows a tile: one step of a product, unrolled over its rows and vectors as it compiles.

A step reads R row blocks of W, `pitch` bytes apart, and T vectors, `stride` bytes apart, and adds
to R x T sums in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic

from kernels import dots
from kernels.lowering import (
    BYTE,
    FLOAT,
    HALF,
    INT,
    SHORT,
    bfloat_to_float,
    crumbs,
    fma,
    half_to_float,
    high_nibbles,
    low_nibbles,
    quad,
    splat,
)
from kernels.simd import BYTES, F32, I32, LANES
from kernels.tiles import Memory, Tile, offset

# ---- steps of integer products ---------------------------------------------------------------


def _starts(begin: Callable[[Any, Any], Any]) -> Any:
    """What sums begin with, to make up for how weights are stored."""

    @intrinsic
    def fill(typing_context, tile, activations, at, stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """tile with every [r,t] begun by the int32 sum at byte at + t*stride of `activations`."""

        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            kind, (filled, _, base, step) = signature.args[0], args
            x = Memory(context, builder, signature.args[1], args[1])
            for t in range(kind.vectors):
                lanes = begin(builder, x.read(INT, base, offset(builder, t, step)))
                for r in range(kind.rows):
                    filled = builder.insert_value(filled, lanes, r * kind.vectors + t)
            return filled

        return tile(tile, activations, types.intp, types.intp), generate

    return fill


biased_starts = _starts(lambda b, x: dots.biased_start(b, b.mul(x, ir.Constant(INT, -128))))
nibble_starts = _starts(lambda b, x: splat(b, b.mul(x, ir.Constant(INT, -8)), I32.llvm))
crumb_starts = _starts(lambda b, x: splat(b, b.neg(x), I32.llvm))


def _dots(split: Callable[[Any, Any], tuple[Any, ...]], dot: Callable[..., Any]) -> Any:
    """A step of sixteen columns: `split` makes 64 bytes of weights one part for four of them."""

    @intrinsic
    def step(typing_context, tile, weights, p, pitch, activations, x, stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """tile[r,t] += W[sixteen columns at byte p + r*pitch] . X[16 bytes at x + t*stride]"""

        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            kind, (sums, _, at, between, _, from_, apart) = signature.args[0], args
            W = Memory(context, builder, signature.args[1], args[1])
            X = Memory(context, builder, signature.args[4], args[4])
            part = 0
            for line in range(4):
                rows = [
                    split(builder, W.read(BYTES.llvm, at, offset(builder, r, between), 64 * line))
                    for r in range(kind.rows)
                ]
                for i in range(len(rows[0])):
                    for t in range(kind.vectors):
                        four = X.at(BYTE, from_, offset(builder, t, apart))
                        lanes = quad(builder, four, part)
                        for r in range(kind.rows):
                            place = r * kind.vectors + t
                            total = dot(
                                builder, builder.extract_value(sums, place), rows[r][i], lanes
                            )
                            sums = builder.insert_value(sums, total, place)
                    part += 1
                if part == 4:
                    break
            return sums

        arguments = (tile, weights, types.intp, types.intp, activations, types.intp, types.intp)
        return tile(*arguments), generate

    return step


byte_dots = _dots(lambda b, w: (w,), dots.dot4_biased)
nibble_dots = _dots(lambda b, w: (low_nibbles(b, w), high_nibbles(b, w)), dots.dot4_nibbles)
crumb_dots = _dots(lambda b, w: tuple(crumbs(b, w, i) for i in range(4)), dots.dot4_nibbles)


def _scaled(half: bool, accumulate: bool) -> Any:
    """sums[r,t] (+)= float(tile[r,t]) * (scales of row block r * scale of vector t)."""
    scale = ir.VectorType(HALF if half else FLOAT, LANES)

    @intrinsic
    def step(typing_context, sums, tile, weights, p, pitch, activations, x, stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            kind, (found, whole, _, at, between, _, from_, apart) = signature.args[0], args
            W = Memory(context, builder, signature.args[2], args[2])
            X = Memory(context, builder, signature.args[5], args[5])
            rows = [W.read(scale, at, offset(builder, r, between)) for r in range(kind.rows)]
            if half:
                rows = [half_to_float(builder, row) for row in rows]
            for t in range(kind.vectors):
                one = X.read(FLOAT, from_, offset(builder, t, apart))
                one = splat(builder, one, F32.llvm)
                for r in range(kind.rows):
                    place = r * kind.vectors + t
                    value = builder.sitofp(builder.extract_value(whole, place), F32.llvm)
                    factor = builder.fmul(rows[r], one)
                    if accumulate:
                        before = builder.extract_value(found, place)
                        value = fma(builder, value, factor, before)
                    else:
                        value = builder.fmul(value, factor)
                    found = builder.insert_value(found, value, place)
            return found

        integers = Tile(I32, sums.rows, sums.vectors)
        places = (types.intp, types.intp)
        return sums(sums, integers, weights, *places, activations, *places), generate

    return step


scaled = _scaled(half=False, accumulate=False)  # float32 scales of rows
add_scaled = _scaled(half=True, accumulate=True)  # float16 scales of groups


# ---- steps of float products, and the end of all -----------------------------------------------


def _products(bits: Any, widen: Callable[[Any, Any], Any], abreast: bool = False) -> Any:
    """sums[r,t] += W[sixteen values at byte p + r*pitch] * X[float32 at byte x + t*stride].

    abreast: rows are columns of one row block, each with the next value of X
    """
    memory = ir.VectorType(bits, LANES)

    @intrinsic
    def step(typing_context, sums, weights, p, pitch, activations, x, stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            kind, (found, _, at, between, _, from_, apart) = signature.args[0], args
            W = Memory(context, builder, signature.args[1], args[1])
            X = Memory(context, builder, signature.args[4], args[4])
            rows = [
                widen(builder, W.read(memory, at, offset(builder, r, between)))
                for r in range(kind.rows)
            ]
            for t in range(kind.vectors):
                for r in range(kind.rows):
                    place, which = r * kind.vectors + t, 4 * r if abreast else 0
                    one = X.read(FLOAT, from_, offset(builder, t, apart), which)
                    one = splat(builder, one, F32.llvm)
                    total = fma(builder, rows[r], one, builder.extract_value(found, place))
                    found = builder.insert_value(found, total, place)
            return found

        places = (types.intp, types.intp)
        return sums(sums, weights, *places, activations, *places), generate

    return step


f32_products = _products(FLOAT, lambda builder, v: v)
f16_products = _products(HALF, half_to_float)
bf16_products = _products(SHORT, bfloat_to_float)
i8_products = _products(BYTE, lambda b, v: b.sitofp(b.sext(v, I32.llvm), F32.llvm))
f32_abreast = _products(FLOAT, lambda builder, v: v, abreast=True)
f16_abreast = _products(HALF, half_to_float, abreast=True)


@intrinsic
def store_folded(typing_context, tile, out, to, pitch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """out[to + t*pitch :] = the sum of a tile's rows for vector t, in pairs."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        kind, (values, _, place, apart) = signature.args[0], args
        memory = Memory(context, builder, signature.args[1], args[1])
        for t in range(kind.vectors):
            rows = [builder.extract_value(values, r * kind.vectors + t) for r in range(kind.rows)]
            while len(rows) > 1:
                rows = [builder.fadd(a, b) for a, b in zip(rows[::2], rows[1::2], strict=True)]
            builder.store(rows[0], memory.at(F32.llvm, place, offset(builder, t, apart)), align=1)
        return context.get_dummy_value()

    return types.void(tile, out, types.intp, types.intp), generate
