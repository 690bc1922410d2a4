"""The feed-forward layers of a checkpoint, run by a pinned crew as the fused step does, alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
from numba import njit

from harness import arena, plugins
from harness.engines.numba import arenas, crew
from harness.records import Array, Checkpoint
from kernels.simd import OPTIONS
from kernels.team import JOB, stopped, take


@dataclass(frozen=True, slots=True)
class Feed:
    """`lap()` runs each layer's ffn on its own row of x (layers, width), for one token.

    small: the float32 tensors of all layers; places: where a layer's begin, see harness.arena
    """

    crew: crew.Crew
    x: Array
    small: Array
    places: Array

    def lap(self) -> None:
        crew.run(self.crew, self.x.shape[0], 0, 0)


def open_feed(checkpoint: Checkpoint, threads: int = 1, cores: Sequence[int] = ()) -> Feed:
    """All layers have one format. Raises BadCheckpoint."""
    shape = checkpoint.shape
    laid_out = arenas.build(checkpoint, 1, 1, threads)
    kind = checkpoint.formats.get("layers.0.ffn.gate", "f32")
    kernel = importlib.import_module(f"kernels.{plugins.formats()[kind].kernel}")
    ffn = plugins.half(plugins.pick(plugins.ffns(), shape.ffn, "ffn"), "engine")
    x, a = np.zeros((shape.layers, shape.width), np.float32), laid_out
    arrays = (x, a.dims, a.weights, a.small, a.ffns, a.scratch, a.prepared)
    enter = _enter(kernel, ffn)
    crew.run(crew.Crew(1, enter, arrays), 1, 0, 0)  # compiles
    team = crew.Crew(threads, enter, arrays)
    crew.start(team, cores)
    return Feed(team, x, a.small, a.ffns)


def close(feed: Feed) -> None:
    crew.stop(feed.crew)


@cache
def _enter(kernel: ModuleType, ffn: ModuleType) -> Callable[..., bool]:
    prepare, multiply, stride = kernel.prepare, kernel.multiply, kernel.activation_bytes
    forward = ffn.forward

    @njit(**OPTIONS)
    def enter(
        thread: int,
        threads: int,
        block: Array,
        n: int,
        depth: int,
        first_logit: int,
        x: Array,
        dims: Array,
        weights: Array,
        small: Array,
        ffns: Array,
        scratch: Array,
        prepared: Array,
    ) -> bool:
        width = dims[arena.WIDTH]
        to = dims[arena.NORMED] + thread * dims[arena.NORMED_PITCH]
        turn = 0
        while take(thread, threads, block, n, depth, first_logit, turn):
            turn += 1
            for layer in range(block[JOB]):
                scratch[to : to + width] = x[layer]
                forward(
                    prepare, multiply, stride, thread, threads, block, 1, dims, weights, small,
                    ffns[layer], scratch, prepared,
                )  # fmt: skip
        return stopped(block)

    return enter  # type: ignore[no-any-return]
