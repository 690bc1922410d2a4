"""Threads that share one compiled call: atomics, a barrier that spins and then yields."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.extending import intrinsic

from kernels.simd import OPTIONS
from kernels.spec import Array

# Words of the shared block, one a cache line of 64 bytes, so that waiting does not slow working.
ARRIVED, GENERATION, SEQUENCE, STOP, PARKED = 0, 8, 16, 24, 32
CLOCK = 40  # the last reading, then nanoseconds by stage, see kernels.laps
WORDS = 48
SPINS = 2000  # about 20 us; past that the barrier gives its time slice to whoever is late


def shared_block() -> Array:
    return np.zeros(WORDS, np.int64)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def atomic_add(typing_context, array, index, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add to array[index] and return what was there before."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", at, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def atomic_load(typing_context, array, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(at, "seq_cst", 8)

    return types.int64(array, types.intp), generate


@intrinsic
def atomic_store(typing_context, array, index, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], at, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), generate


@intrinsic
def pause(typing_context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Tell the core that this is a waiting loop, where it has a word for it."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if "x86" in llvm.get_process_triple():
            empty = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, empty, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def give_way(typing_context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Let another thread run on this core (POSIX sched_yield)."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        integer = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, integer, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@njit(**OPTIONS)
def barrier(block: Array, threads: int) -> None:
    """Wait until all `threads` are here. Spins first, then yields, so it works on busy machines."""
    if threads == 1:
        return
    generation = atomic_load(block, GENERATION)
    if atomic_add(block, ARRIVED, 1) == threads - 1:
        atomic_store(block, ARRIVED, 0)
        atomic_store(block, GENERATION, generation + 1)
        return
    spins = 0
    while atomic_load(block, GENERATION) == generation:
        spins += 1
        if spins < SPINS:
            pause()
        else:
            give_way()


@njit(**OPTIONS)
def share(total: int, thread: int, threads: int) -> tuple[int, int]:
    """The part first..last of `total` work items that falls to one thread."""
    return total * thread // threads, total * (thread + 1) // threads
