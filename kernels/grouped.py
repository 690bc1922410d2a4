"""Weights in groups of 32 columns with one scale a row: their stream, and the tile that reads it.

A record holds sixteen rows of one group: 16 scales float16 (32 B), then its levels in two halves of
sixteen columns. Records of a row block follow each other. How levels are packed is each kernel's.

Sizes: m rows, k columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from kernels import tile_steps as steps
from kernels import tiles
from kernels.rounding import GROUP, GROUP_BYTES, SCALE, SUM
from kernels.simd import INNER, LANES
from kernels.spec import Array

HEAD = 32  # bytes of scales before a record's levels


def padded(levels: Array, zero: int) -> Array:
    """levels (m,k) uint8 -> whole blocks and groups of them, the rest at the level of 0."""
    m, k = levels.shape
    whole = np.full((-(-m // LANES) * LANES, -(-k // GROUP) * GROUP), zero, np.uint8)
    whole[:m, :k] = levels
    return whole


def stream(payload: Array, scale: Array) -> Array:
    """Packed levels (blocks,groups,bytes) and scale (m,groups) float16 -> the stream, uint8."""
    blocks, groups = payload.shape[:2]
    scales = np.zeros((blocks * LANES, groups), np.float16)
    scales[: len(scale)] = scale
    heads = np.ascontiguousarray(scales.reshape(blocks, LANES, groups).transpose(0, 2, 1))
    parts = [heads.view(np.uint8).reshape(blocks, groups, HEAD), payload]
    return np.concatenate(parts, 2).reshape(-1)


def stream_bytes(m: int, k: int, record: int) -> int:
    return -(-m // LANES) * -(-k // GROUP) * record


def records(stream: Array, k: int, record: int) -> Array:
    """The stream as (blocks,groups,record) bytes."""
    return stream.reshape(-1, -(-k // GROUP), record)


def weights(values: Array, records: Array, m: int, k: int) -> Array:
    """Levels (blocks,LANES,groups,GROUP) float32, zero at 0, and their records -> (m,k) float32."""
    scales = np.ascontiguousarray(records[..., :HEAD]).view(np.float16).astype(np.float32)
    scaled = values * scales.transpose(0, 2, 1)[..., None]
    return scaled.reshape(-1, values.shape[2] * GROUP)[:m, :k].astype(np.float32)


def tile(starts: Callable[..., Any], dots: Callable[..., Any], record: int) -> Callable[..., None]:
    """What `tiles.product` grows: a tile of these records, by two of its steps.

    starts: what sums of a group begin with; dots: adds the products of half a record
    """
    half = (record - HEAD) // 2

    @njit(**INNER)
    def product(
        sums: tiles.Tile,
        weights: Array,
        start: int,
        activations: Array,
        at: int,
        stride: int,
        k: int,
        block: int,
        out: Array,
        to: int,
        pitch: int,
        accumulate: bool,
    ) -> None:
        """One tile: all columns of whole row blocks from `block` on."""
        groups = (k + 31) // 32
        between = groups * record
        p, x = start + block * between, at
        for _ in range(groups):
            total = starts(tiles.integers(sums), activations, x + SUM, stride)
            for i in range(2):
                total = dots(
                    total, weights, p + HEAD + half * i, between, activations, x + 16 * i, stride
                )
            sums = steps.add_scaled(
                sums, total, weights, p, between, activations, x + SCALE, stride
            )
            p, x = p + record, x + GROUP_BYTES
        tiles.put(sums, out, to + block * LANES, pitch, accumulate)

    return product  # type: ignore[no-any-return]
