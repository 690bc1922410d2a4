"""Vector types for Numba, and what makes functions of them: readers, writers, operations.

simd.py is the vocabulary that is made of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic, models, register_model

from kernels import expand
from kernels.lowering import BYTE, FLOAT, INT, LANES


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


def pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def loader(result: Any, memory: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    """load(array, index): `memory` read at array[index], index in the array's own elements."""

    @intrinsic
    def load(typing_context, array, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            at = pointer(context, builder, signature.args[0], args[0], args[1])
            value = builder.load(builder.bitcast(at, memory.as_pointer()), align=1)
            return convert(builder, value) if convert else value

        return result(array, types.intp), generate

    return load


def storer(value_type: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    """store(array, index, value), unaligned."""

    @intrinsic
    def store(typing_context, array, index, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            at = pointer(context, builder, signature.args[0], args[0], args[1])
            stored = convert(builder, args[2]) if convert else args[2]
            builder.store(stored, builder.bitcast(at, stored.type.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(array, types.intp, value_type), generate

    return store


def operation(result: Any, operands: tuple[Any, ...], lower: Callable[..., Any]) -> Any:
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


def spreader(convert: Callable[[Any, Any], Any]) -> Any:
    """spread(array, index, stride, value): sixteen elements, `stride` places apart."""

    @intrinsic
    def spread(typing_context, array, index, stride, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            elements, place = convert(builder, args[3]), args[1]
            for i in range(LANES):
                at = pointer(context, builder, signature.args[0], args[0], place)
                element = builder.extract_element(elements, INT(i))
                builder.store(element, builder.bitcast(at, element.type.as_pointer()), align=1)
                place = builder.add(place, args[2])
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, F32), generate

    return spread


def expander(result: Any, absent: Any, convert: Callable[[Any, Any], Any] | None = None) -> Any:
    """expand(array, index, mask): values stored in a row at array[index], in the lanes of a mask.

    mask: int64, of which the lowest bits count, one a lane; other lanes are `absent`.
    """

    @intrinsic
    def load(typing_context, array, index, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            at = pointer(context, builder, signature.args[0], args[0], args[1])
            value = expand.expand(builder, builder.bitcast(at, BYTE.as_pointer()), args[2], absent)
            return convert(builder, value) if convert else value

        return result(array, types.intp, types.int64), generate

    return load
