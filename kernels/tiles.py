"""Running sums of several row blocks for several vectors at once, kept in registers.

A matrix product is fast when each weight and each input that is read serves several sums. A `Tile`
is R x T vectors of sixteen lanes: R blocks of sixteen rows of W, for T vectors of X. Its steps are
written once for any R and T, and unrolled when they compile.

    | W block 0 | x | x_0 ... x_{T-1} |  ->  tile[0,0] ... tile[0,T-1]
    | ...       |                            ...
    | W block R-1                            tile[R-1,0] ... tile[R-1,T-1]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.extending import intrinsic, models, register_model

from kernels import simd
from kernels.lowering import has
from kernels.simd import EXACT, F32, I32, INNER, LANES, Vector
from kernels.spec import Array


class Tile(types.Type):  # type: ignore[misc]
    """rows x vectors values of one vector type, row by row."""

    def __init__(self, element: Vector, rows: int, vectors: int) -> None:
        self.element, self.rows, self.vectors = element, rows, vectors
        self.llvm = ir.ArrayType(element.llvm, rows * vectors)
        super().__init__(name=f"Tile({element} x {rows} x {vectors})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Tile) -> None:
        super().__init__(manager, numba_type, numba_type.llvm)


def zeros(element: Vector, rows: int, vectors: int) -> Any:
    """An intrinsic without arguments that returns a tile of zeros."""
    tile = Tile(element, rows, vectors)

    @intrinsic
    def make(typing_context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return tile(), lambda context, builder, sig, args: ir.Constant(tile.llvm, None)

    return make


class Memory:
    """Reads of one array argument inside an intrinsic, at byte or element offsets."""

    def __init__(self, context: Any, builder: Any, array_type: Any, array: Any) -> None:
        self.builder = builder
        self.data = context.make_array(array_type)(context, builder, array).data

    def read(self, kind: Any, base: Any, *steps: Any) -> Any:
        return self.builder.load(self.at(kind, base, *steps), align=1)

    def at(self, kind: Any, base: Any, *steps: Any) -> Any:
        for step in steps:
            base = self.builder.add(base, step if isinstance(step, ir.Value) else base.type(step))
        return self.builder.bitcast(self.builder.gep(self.data, [base]), kind.as_pointer())


def offset(builder: Any, index: int, stride: Any) -> Any:
    return builder.mul(stride, stride.type(index))


def _every(tile: Tile) -> list[tuple[int, int, int]]:
    """(place, row, vector) of each element."""
    return [(r * tile.vectors + t, r, t) for r in range(tile.rows) for t in range(tile.vectors)]


def _writer(accumulate: bool) -> Any:
    @intrinsic
    def write(typing_context, tile, out, to, pitch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            kind, (values, _, place, apart) = signature.args[0], args
            memory = Memory(context, builder, signature.args[1], args[1])
            for i, r, t in _every(kind):
                at = memory.at(F32.llvm, place, offset(builder, t, apart), r * LANES)
                value = builder.extract_value(values, i)
                if accumulate:
                    value = builder.fadd(value, builder.load(at, align=1))
                builder.store(value, at, align=1)
            return context.get_dummy_value()

        return types.void(tile, out, types.intp, types.intp), generate

    return write


store = _writer(accumulate=False)  # out[to + t*pitch + 16*r :] = tile[r,t]
add_to = _writer(accumulate=True)


@intrinsic
def load(typing_context, tile, array, at, pitch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A tile as large as the given one, with tile[r,t] = array[at + t*pitch + 16*r :]."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        kind, (found, _, place, apart) = signature.args[0], args
        memory = Memory(context, builder, signature.args[1], args[1])
        for i, r, t in _every(kind):
            value = memory.read(F32.llvm, place, offset(builder, t, apart), r * LANES)
            found = builder.insert_value(found, value, i)
        return found

    return tile(tile, array, types.intp, types.intp), generate


@intrinsic
def integers(typing_context, tile):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A tile of integer zeros, as large as the given one."""
    zero = Tile(I32, tile.rows, tile.vectors)
    return zero(tile), lambda context, builder, sig, args: ir.Constant(zero.llvm, None)


@njit(**INNER)
def put(sums: Tile, out: Array, to: int, pitch: int, accumulate: bool) -> None:
    """Write sums[r,t] to out[to + t*pitch + 16*r :], or add them to what is there."""
    if accumulate:
        add_to(sums, out, to, pitch)
    else:
        store(sums, out, to, pitch)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tiles of one kind of product: rows x vectors, and thinner ones for what is left over."""

    rows: int
    vectors: int


# Tiles that fill the registers and spill none: there are 32 of 512 bits with AVX-512; elsewhere
# sixteen lanes take two of 16 (AVX2) or four of 32 (NEON). By groups there are two sums: of the
# group, and of all.
WIDE = has("avx512f")
PLAIN = Sizes(4, 6) if WIDE else Sizes(1, 4)
GROUPED = Sizes(2, 6) if WIDE else Sizes(1, 3)


def product(tile: Callable[..., None], single: Callable[..., None], sizes: Sizes) -> Any:
    """`multiply` with n vectors, tile by tile.

    tile(zeros, weights, start, activations, at, stride, k, block, out, to, pitch, accumulate): all
    columns of one tile of the size of `zeros`; single: the product with one vector.
    """
    rows, vectors = sizes.rows, sizes.vectors
    big, tall = zeros(F32, rows, vectors), zeros(F32, rows, 1)
    flat, least = zeros(F32, 1, vectors), zeros(F32, 1, 1)

    @njit(**EXACT)
    def multiply(
        weights: Array,
        start: int,
        activations: Array,
        at: int,
        stride: int,
        n: int,
        k: int,
        m: int,
        first: int,
        last: int,
        out: Array,
        to: int,
        pitch: int,
        accumulate: bool,
    ) -> None:
        """Row blocks first..last of W for n prepared vectors, `stride` bytes apart.

        Vector t is written or added to out[to + t*pitch:][:m]. W starts at byte `start`.
        """
        simd.stand_apart()
        add = simd.opaque(accumulate)
        whole = max(first, min(last, m // LANES))  # a last block of less than sixteen is ragged
        if n == 1:  # one stream of weights is what memory reads fastest
            whole = first
        grouped = first + (whole - first) // rows * rows
        together = n // vectors * vectors
        for block in range(first, grouped, rows):
            for t in range(0, together, vectors):
                tile(
                    big(), weights, start, activations, at + t * stride, stride, k, block,
                    out, to + t * pitch, pitch, add,
                )  # fmt: skip
            for t in range(together, n):
                tile(
                    tall(), weights, start, activations, at + t * stride, stride, k, block,
                    out, to + t * pitch, pitch, add,
                )  # fmt: skip
        for block in range(grouped, whole):
            for t in range(0, together, vectors):
                tile(
                    flat(), weights, start, activations, at + t * stride, stride, k, block,
                    out, to + t * pitch, pitch, add,
                )  # fmt: skip
            # not by `single`: the order of its sums differs, and with it the last bits, which
            # must not depend on how threads share the blocks
            for t in range(together, n):
                tile(
                    least(), weights, start, activations, at + t * stride, stride, k, block,
                    out, to + t * pitch, pitch, add,
                )  # fmt: skip
        for t in range(n):
            single(
                weights, start, activations, at + t * stride, k, m, whole, last,
                out, to + t * pitch, add,
            )  # fmt: skip

    return multiply
