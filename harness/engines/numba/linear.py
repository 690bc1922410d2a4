"""Packed matrices -> products by a pinned crew, as the fused step does them, and nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
from numba import njit

from harness import plugins
from harness.engines.numba import crew
from harness.records import Array, Format
from kernels.simd import LANES, OPTIONS
from kernels.team import JOB, barrier, share, stopped, take

ALIGN = 64


@dataclass(frozen=True, slots=True)
class Linears:
    """`lap()` multiplies x (k,) float32 by each matrix in turn; the last product is y (m,).

    Every product rounds x anew, if its format does, and ends with all threads waiting for each
    other, as in a decode step.
    """

    crew: crew.Crew
    count: int
    x: Array
    y: Array
    arena_bytes: int

    def lap(self) -> Array:
        crew.run(self.crew, self.count, 0, 0)
        return self.y


def open_linears(
    form: str | Format, weights: Array, count: int, threads: int = 1, cores: Sequence[int] = ()
) -> Linears:
    """So many copies of weights (m,k) in a format of ours, each in memory of its own."""
    spec = plugins.pick(plugins.formats(), form, "format") if isinstance(form, str) else form
    kernel = importlib.import_module(f"kernels.{spec.kernel}")
    m, k = weights.shape
    stream = spec.layout(spec.pack(weights), (m, k))
    pitch = -(-stream.size // ALIGN) * ALIGN
    arena = _aligned(pitch * count)
    for i in range(count):
        arena[i * pitch : i * pitch + stream.size] = stream
    own = -(-kernel.activation_bytes(k) // ALIGN) * ALIGN
    x, y = np.zeros(k, np.float32), np.zeros(m, np.float32)
    dims = np.array([k, m, pitch, own], np.int64)
    arrays = (arena, x, _aligned(own * threads), y, dims)
    enter = _enter(kernel)
    crew.run(crew.Crew(1, enter, arrays), 1, 0, 0)  # compiles
    team = crew.Crew(threads, enter, arrays)
    crew.start(team, cores)
    return Linears(team, count, x, y, arena.size)


def close(linears: Linears) -> None:
    crew.stop(linears.crew)


@cache
def _enter(kernel: ModuleType) -> Callable[..., bool]:
    prepare, multiply, stride = kernel.prepare, kernel.multiply, kernel.activation_bytes

    @njit(**OPTIONS)
    def enter(
        thread: int,
        threads: int,
        block: Array,
        n: int,
        depth: int,
        first_logit: int,
        weights: Array,
        x: Array,
        prepared: Array,
        y: Array,
        dims: Array,
    ) -> bool:
        k, m, pitch, own = dims[0], dims[1], dims[2], dims[3]
        mine = thread * own
        begin, end = share((m + LANES - 1) // LANES, thread, threads)
        turn = 0
        while take(thread, threads, block, n, depth, first_logit, turn):
            turn += 1
            for i in range(block[JOB]):
                prepare(x, 0, k, prepared, mine)
                multiply(
                    weights, i * pitch, prepared, mine, stride(k), 1, k, m, begin, end,
                    y, 0, m, False,
                )  # fmt: skip
                barrier(block, threads)
        return stopped(block)

    return enter  # type: ignore[no-any-return]


def _aligned(size: int) -> Array:
    room = np.zeros(size + ALIGN, np.uint8)
    start = -room.ctypes.data % ALIGN
    return room[start : start + size]
