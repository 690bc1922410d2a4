"""Threads that share one compiled call: atomics, a job to wait for, a barrier.

Waiting spins first, then gives time slices away, then sleeps, so that it is quick on a quiet
machine and harmless on a busy one. Nothing here takes a lock of Python's, so no signal handler
and no exception can come between the parts of a call.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.extending import intrinsic

from kernels.lowering import ARM, INT, call
from kernels.simd import OPTIONS
from kernels.spec import Array

# Words of the shared block, one a cache line of 64 bytes, so that waiting does not slow working.
ARRIVED, GENERATION, SEQUENCE, STOP, PARKED = 0, 8, 16, 24, 32
CLOCK = 40  # the last reading, then nanoseconds by stage, see kernels.laps
JOB = 48  # tokens of this call, tokens before it, first token whose logits are wanted
WORDS = 56
SPINS = 2000  # some 20 us: most waits for a thread that runs are over by then
YIELDS = 20_000  # some milliseconds: most waits for the next token are
NAP_NANOSECONDS = 100_000  # of a wait for a thread that has no core
SLEEP_NANOSECONDS = 500_000_000  # then a helper looks around, though it is woken for each job

# asm-generic/unistd.h and arch/x86/entry/syscalls/syscall_64.tbl; linux/futex.h
FUTEX = 202 if llvm.get_process_triple().startswith("x86_64") else 98
WAIT_PRIVATE, WAKE_PRIVATE, EVERYONE = 128, 129, 2**31 - 1


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
        triple = llvm.get_process_triple()
        if triple.startswith("x86"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif triple.startswith(ARM):
            # `yield` does nothing on most cores; `isb` (of the full system, 15) waits some cycles
            call(builder, "llvm.aarch64.isb", ir.VoidType(), [ir.Constant(INT, 15)])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def give_way(typing_context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Let another thread run on this core (POSIX sched_yield)."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        call(builder, "sched_yield", INT, [])
        return context.get_dummy_value()

    return types.void(), generate


def _linux() -> bool:
    return "linux" in llvm.get_process_triple()


def _futex(builder: Any, word: Any, arguments: list[Any]) -> None:
    """syscall(FUTEX, &word, ...): Linux watches the low half of the word, the first on all ours."""
    long = ir.IntType(64)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(long, [long], var_arg=True), "syscall"
    )
    builder.call(function, [ir.Constant(long, FUTEX), word, *arguments])


@intrinsic
def sleep_while(typing_context, array, index, value, nanoseconds):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sleep until woken, at most so long, and not at all once array[index] is not value.

    Where there is no futex, sleep a while: whoever waits looks again.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        word = _pointer(context, builder, signature.args[0], args[0], args[1])
        if not _linux():
            call(builder, "usleep", INT, [ir.Constant(INT, NAP_NANOSECONDS // 1000)])
            return context.get_dummy_value()
        long = ir.IntType(64)
        span = cgutils.alloca_once(builder, ir.LiteralStructType([long, long]))  # struct timespec
        builder.store(ir.Constant(long, 0), cgutils.gep_inbounds(builder, span, 0, 0))
        builder.store(args[3], cgutils.gep_inbounds(builder, span, 0, 1))
        nothing = ir.Constant(long.as_pointer(), None)
        operation, old = ir.Constant(INT, WAIT_PRIVATE), builder.trunc(args[2], INT)
        _futex(builder, word, [operation, old, span, nothing, ir.Constant(INT, 0)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64, types.int64), generate


@intrinsic
def wake_all(typing_context, array, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Wake every thread that sleeps at array[index]."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if _linux():
            word = _pointer(context, builder, signature.args[0], args[0], args[1])
            constants = [ir.Constant(INT, value) for value in (WAKE_PRIVATE, EVERYONE)]
            _futex(builder, word, constants)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(**OPTIONS)
def barrier(block: Array, threads: int) -> None:
    """Wait until all `threads` are here; nobody waits any more once the team was stopped.

    What a call makes after that is worth nothing, so whoever called must look at `stopped`.
    """
    if threads == 1:
        return
    generation = atomic_load(block, GENERATION)
    if atomic_add(block, ARRIVED, 1) == threads - 1:
        atomic_store(block, ARRIVED, 0)
        atomic_store(block, GENERATION, generation + 1)
        return
    turns = 0
    while atomic_load(block, GENERATION) == generation:
        turns += 1
        if turns < SPINS:
            pause()
        elif stopped(block):
            return
        elif turns < SPINS + YIELDS:
            give_way()
        else:
            sleep_while(block, GENERATION, generation, NAP_NANOSECONDS)


@njit(**OPTIONS)
def post(block: Array, n: int, depth: int, first_logit: int) -> None:
    """Give the helpers a job, and wake those that sleep."""
    block[JOB], block[JOB + 1], block[JOB + 2] = n, depth, first_logit
    announce(block)


@njit(**OPTIONS)
def announce(block: Array) -> None:
    # A helper counts itself in PARKED before it looks at SEQUENCE for the last time; here it is
    # the other way round, so one of the two sees what the other did.
    atomic_add(block, SEQUENCE, 1)
    if atomic_load(block, PARKED) > 0:
        wake_all(block, SEQUENCE)


@njit(**OPTIONS)
def await_job(block: Array, seen: int) -> bool:
    """Wait for the job after the one numbered `seen`; False when the team is told to stop."""
    turns = 0
    while atomic_load(block, SEQUENCE) == seen:
        turns += 1
        if turns < 2 * SPINS:
            pause()
        elif turns < 2 * SPINS + YIELDS:
            give_way()
        else:
            atomic_add(block, PARKED, 1)
            sleep_while(block, SEQUENCE, seen, SLEEP_NANOSECONDS)
            atomic_add(block, PARKED, -1)
    return not stopped(block)


@njit(**OPTIONS)
def take(
    thread: int, threads: int, block: Array, n: int, depth: int, first_logit: int, turn: int
) -> bool:
    """Whether this thread has a job to do, its turn-th: then it is in block[JOB:].

    Thread 0 has the one that it brings; the others have as many as come until the team is
    stopped, and wait for them here. Thread -1 stops the team.
    """
    if thread < 0:
        stop(block)
        return False
    if thread > 0:
        return await_job(block, turn)
    if turn == 0:
        post(block, n, depth, first_logit)
    return turn == 0


@njit(**OPTIONS)
def stop(block: Array) -> None:
    """Tell the helpers to return, also from a job that others have left; for ever."""
    atomic_store(block, STOP, 1)
    announce(block)


@njit(**OPTIONS)
def stopped(block: Array) -> bool:
    return atomic_load(block, STOP) == 1


@njit(**OPTIONS)
def share(total: int, thread: int, threads: int) -> tuple[int, int]:
    """The part first..last of `total` work items that falls to one thread."""
    return total * thread // threads, total * (thread + 1) // threads
