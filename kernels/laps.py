"""Nanoseconds of each stage of a forward pass, added up by thread 0 when EDGEWISE_LAPS=1.

Off, which is what is timed and published, `start` and `lap` are empty and leave no instruction.
"""

from __future__ import annotations

import os
import time

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.extending import intrinsic

from kernels.simd import OPTIONS
from kernels.spec import Array
from kernels.team import CLOCK

VARIABLE = "EDGEWISE_LAPS"
# Read once: compiled code freezes it, and the cache of compiled plans is named by it.
ON = os.environ.get(VARIABLE) == "1"
STAGES = ("embedding", "norm", "project", "mix", "ffn", "head")
EMBEDDING, NORM, PROJECT, MIX, FFN, HEAD = range(len(STAGES))
# macOS counts its CLOCK_MONOTONIC in microseconds and CLOCK_UPTIME_RAW in nanoseconds.
_CLOCK_ID = getattr(time, "CLOCK_UPTIME_RAW", getattr(time, "CLOCK_MONOTONIC", 1))


@intrinsic
def nanoseconds(typing_context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A clock that only goes forward (POSIX clock_gettime), 20 to 30 ns a reading."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        integer, whole = ir.IntType(32), ir.IntType(64)
        pair = ir.LiteralStructType([whole, whole])  # struct timespec of a 64-bit system
        at = cgutils.alloca_once(builder, pair)
        kind = ir.FunctionType(integer, [integer, pair.as_pointer()])
        function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(function, [ir.Constant(integer, _CLOCK_ID), at])
        seconds, rest = (builder.load(cgutils.gep_inbounds(builder, at, 0, i)) for i in (0, 1))
        return builder.add(builder.mul(seconds, ir.Constant(whole, 10**9)), rest)

    return types.int64(), generate


@njit(**OPTIONS)
def start(thread: int, block: Array) -> None:
    """The clock starts; block: the team's shared block (int64)."""
    if ON and thread == 0:
        block[CLOCK] = nanoseconds()


@njit(**OPTIONS)
def lap(thread: int, block: Array, stage: int) -> None:
    """What passed since the last lap was this stage; waiting at its barrier included."""
    if ON and thread == 0:
        now = nanoseconds()
        block[CLOCK + 1 + stage] += now - block[CLOCK]
        block[CLOCK] = now


def read(block: Array) -> Array:
    """Nanoseconds (stage,) since they were last read, set back to zero."""
    words = block[CLOCK + 1 : CLOCK + 1 + len(STAGES)]
    found: Array = words.copy()
    words[:] = 0
    return found
