"""Attention in the engine: project, rotate, append to the cache, attend, project back."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness import arena
from kernels import attention, rope
from kernels.laps import MIX, PROJECT, lap
from kernels.simd import LANES, OPTIONS
from kernels.spec import Array
from kernels.team import barrier, share


@njit(**OPTIONS)
def begin(
    thread: int, n: int, depth: int, dims: Array, small: Array, state: Array, scratch: Array
) -> None:
    """Once per call: this thread's table of angles for positions depth.."""
    table = dims[arena.TABLE] + thread * dims[arena.TABLE_PITCH]
    rope.angles(depth, n, dims[arena.HEAD_WIDTH], small, arena.SPEEDS, scratch, table)


@njit(**OPTIONS)
def forward(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    activation_bytes: Callable[[int], int],
    thread: int,
    threads: int,
    block: Array,
    n: int,
    depth: int,
    dims: Array,
    weights: Array,
    small: Array,
    offsets: Array,
    state: Array,
    scratch: Array,
    prepared: Array,
) -> None:
    """Add attention of n normed tokens to the residual. offsets: q k v o, state."""
    width, w = dims[arena.WIDTH], dims[arena.HEAD_WIDTH]
    heads, kv_heads, room = dims[arena.HEADS], dims[arena.KV_HEADS], dims[arena.ROOM]
    queries, keys = heads * w, kv_heads * w
    wide, pitch, mixed = dims[arena.WIDE], queries + 2 * keys, dims[arena.MIXED]
    normed = dims[arena.NORMED] + thread * dims[arena.NORMED_PITCH]
    mine, stride = thread * dims[arena.PREPARED_PITCH], activation_bytes(width)
    for t in range(n):
        prepare(scratch, normed + t * width, width, prepared, mine + t * stride)
    for part in range(3):
        rows = queries if part == 0 else keys
        to = wide + (0 if part == 0 else queries + (part - 1) * keys)
        first, last = share((rows + LANES - 1) // LANES, thread, threads)
        multiply(
            weights, offsets[part], prepared, mine, stride, n, width, rows, first, last,
            scratch, to, pitch, False,
        )  # fmt: skip
    barrier(block, threads)
    lap(thread, block, PROJECT)

    table = dims[arena.TABLE] + thread * dims[arena.TABLE_PITCH]
    scores = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
    first, last = share(kv_heads, thread, threads)
    each = heads // kv_heads
    for head in range(first, last):
        start_k = offsets[4] + head * room * w
        start_v = start_k + keys * room
        for t in range(n):
            row = wide + t * pitch
            rope.rotate(scratch, row + queries + head * w, w, scratch, table + t * w)
            attention.append(scratch, row + queries + head * w, w, state, start_k + (depth + t) * w)
            attention.append(
                scratch, row + queries + keys + head * w, w, state, start_v + (depth + t) * w
            )
        for t in range(n):
            for query in range(head * each, (head + 1) * each):
                at = wide + t * pitch + query * w
                rope.rotate(scratch, at, w, scratch, table + t * w)
                attention.attend(
                    scratch, at, state[start_k:], state[start_v:], 0, depth + t + 1, w,
                    scratch, scores, scratch, mixed + t * queries + query * w,
                )  # fmt: skip
    barrier(block, threads)
    lap(thread, block, MIX)

    stride = activation_bytes(queries)
    for t in range(n):
        prepare(scratch, mixed + t * queries, queries, prepared, mine + t * stride)
    first, last = share((width + LANES - 1) // LANES, thread, threads)
    multiply(
        weights, offsets[3], prepared, mine, stride, n, queries, width, first, last,
        scratch, dims[arena.RESIDUAL], width, True,
    )  # fmt: skip
    barrier(block, threads)
