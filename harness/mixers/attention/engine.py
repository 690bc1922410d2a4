"""Attention in the engine: project, rotate, append to the cache, attend, project back."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
from numba import njit

from harness import arena
from harness.records import Shape
from kernels import attention, attention_f16, attention_int8, rope
from kernels.attending import attend_over, room_for
from kernels.caches import KINDS
from kernels.laps import MIX, PROJECT, lap
from kernels.sharing import owner, ready
from kernels.simd import LANES, OPTIONS, PART
from kernels.spec import Array
from kernels.team import barrier, share

STATE, SLOPES, ALIBI_STATE = 4, 4, 5  # after the places of q k v o


@njit(**OPTIONS)
def begin(
    thread: int, n: int, depth: int, dims: Array, small: Array, state: Array, scratch: Array
) -> None:
    """Once per call: this thread's table of angles for positions depth.."""
    table = dims[arena.TABLE] + thread * dims[arena.TABLE_PITCH]
    rope.angles(depth, n, dims[arena.HEAD_WIDTH], small, arena.SPEEDS, scratch, table)


@njit(**OPTIONS)
def begin_alibi(
    thread: int, n: int, depth: int, dims: Array, small: Array, state: Array, scratch: Array
) -> None:
    """A bias needs no table."""


def _forward_over(kernel: ModuleType, alibi: bool = False) -> Callable[..., None]:
    """`forward` over one kind of cache: that of a kernel attention*.py."""
    append, attend = kernel.append, kernel.attend
    key_bytes, value_bytes = kernel.CACHE.key_bytes, kernel.CACHE.value_bytes
    state_at = ALIBI_STATE if alibi else STATE
    leaning = attend_over(kernel.CACHE, leaning=True) if alibi else attend

    @njit(**PART)
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
        """Add attention of n normed tokens to the residual. offsets: q k v o [slopes], state."""
        width, w = dims[arena.WIDTH], dims[arena.HEAD_WIDTH]
        heads, kv_heads, room = dims[arena.HEADS], dims[arena.KV_HEADS], dims[arena.ROOM]
        queries, keys = heads * w, kv_heads * w
        wide, pitch, mixed = dims[arena.WIDE], queries + 2 * keys, dims[arena.MIXED]
        normed = dims[arena.NORMED] + owner(n, thread) * dims[arena.NORMED_PITCH]
        place, stride = dims[arena.PREPARED_PITCH], activation_bytes(width)
        mine = ready(
            prepare, scratch, normed, width, width, n, prepared, place, stride, thread, threads,
            block,
        )  # fmt: skip
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
        own = dims[arena.OWN] + thread * dims[arena.OWN_PITCH]
        first, last = share(kv_heads, thread, threads)
        each, past = heads // kv_heads, state.view(np.uint8)
        head_bytes = room_for(room) // LANES * (key_bytes(w) + value_bytes(w))
        for head in range(first, last):
            start = 4 * offsets[state_at] + head * head_bytes
            for t in range(n):
                row, slot = wide + t * pitch, depth + t
                key = row + queries + head * w
                if not alibi:
                    rope.rotate(scratch, key, w, scratch, table + t * w)
                append(scratch, key, scratch, key + keys, w, past, start, room, slot)
                if not alibi:
                    for query in range(head * each, (head + 1) * each):
                        rope.rotate(scratch, row + query * w, w, scratch, table + t * w)
            if alibi:
                leaning(
                    scratch, wide + head * each * w, pitch, each, n, depth, w, past, start, room,
                    scratch, own, scratch, mixed + head * each * w, queries,
                    small, offsets[SLOPES] + head * each,
                )  # fmt: skip
            else:
                attend(
                    scratch, wide + head * each * w, pitch, each, n, depth, w, past, start, room,
                    scratch, own, scratch, mixed + head * each * w, queries,
                )  # fmt: skip
        barrier(block, threads)
        lap(thread, block, MIX)

        stride = activation_bytes(queries)
        mine = ready(
            prepare, scratch, mixed, queries, queries, n, prepared, place, stride, thread, threads,
            block,
        )  # fmt: skip
        first, last = share((width + LANES - 1) // LANES, thread, threads)
        multiply(
            weights, offsets[3], prepared, mine, stride, n, queries, width, first, last,
            scratch, dims[arena.RESIDUAL], width, True,
        )  # fmt: skip
        barrier(block, threads)

    return forward


forward_f32 = _forward_over(attention)
forward_f16 = _forward_over(attention_f16)
forward_int8 = _forward_over(attention_int8)
forward_alibi_f32 = _forward_over(attention, alibi=True)
forward_alibi_f16 = _forward_over(attention_f16, alibi=True)
forward_alibi_int8 = _forward_over(attention_int8, alibi=True)


def repeat(layer: Array, shape: Shape, room: int, depth: int) -> None:
    """Fill a layer's cache up to `depth` tokens with copies of its first record."""
    cache, w, used = KINDS[shape.cache], shape.head_width, -(-depth // LANES)
    for head in layer.view(np.uint8).reshape(shape.kv_heads, -1):
        cut = room_for(room) // LANES * cache.key_bytes(w)
        for part, size in ((head[:cut], cache.key_bytes(w)), (head[cut:], cache.value_bytes(w))):
            records = part.reshape(-1, size)
            records[1:used] = records[0]
