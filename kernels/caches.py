"""How keys and values of past tokens are kept: sixteen tokens a record, one head one stream.

A record is two small weight matrices: keys with tokens abreast, so that sixteen scores need no
shuffling, and values with features abreast. What multiplies weights multiplies them, too.

    record (16 tokens, w features; w padded to sixteens)
    f32, f16 | k[tokens, 0] | k[tokens, 1] ... | v[0, 0..15] | v[1, 0..15] ... v[15, 0..15] | ...
               sixteen a feature                 sixteen a token, one block of 16 features after
                                                   the other
    int8     | 16 scales | k[tokens, 0..3] | ...  | 16 scales | v as above |
               float32     as in matvec_int8                    float32, one a token
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from kernels import rounding, simd, tiles
from kernels import tile_steps as steps
from kernels.simd import EXACT, INNER, LANES, TINY
from kernels.spec import Array

HEAD = 64  # bytes of sixteen float32 scales


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """One way to keep keys and values, as compiled functions. Places are bytes, unless said.

    record_bytes(w), values_at(w): length of a record, and where its values begin
    query_bytes(w): length of a prepared query
    prepare(q, at, w, scale, bytes, to): scale * q[at:at+w], ready for `scores`; at counts floats
    append(k, at, v, from_, w, cache, record, slot): token `slot` of a record; both count floats
    scores(zeros, cache, p, pitch, bytes, x, stride, w, ahead) -> tile: keys of a tile's records,
        `pitch` apart, times its queries, `stride` apart; asks for what is `ahead`, if that is not 0
    weigh(chances, cache, values) -> the chances of sixteen tokens times what scales their values
    values(sums, cache, p, record, bytes, x, stride, first, last, ahead) -> tile: sums + features
        of a tile's blocks times the chances of tokens first..last, counted from the first record
    block_bytes: what sixteen features of a record's values take
    read(cache, w) -> keys and values (records, 16, w) float32, of whole records
    rounded(q) -> queries (...,w) as `scores` sees them, float64
    """

    name: str
    record_bytes: Callable[[int], int]
    values_at: Callable[[int], int]
    query_bytes: Callable[[int], int]
    prepare: Callable[..., None]
    append: Callable[..., None]
    scores: Callable[..., Any]
    weigh: Callable[..., Any]
    values: Callable[..., Any]
    block_bytes: int
    read: Callable[[Array, int], tuple[Array, Array]]
    rounded: Callable[[Array], Array]


@njit(**EXACT)
def padded(w: int) -> int:
    return (w + LANES - 1) // LANES * LANES


def _floats(name: str, size: int, dtype: type[np.generic], step: Any, put: Any, spread: Any) -> Any:
    """A cache of floats of `size` bytes; put and spread store sixteen in a row, and apart."""
    row = LANES * size

    @njit(**EXACT)
    def record_bytes(w: int) -> int:
        return 2 * row * padded(w)

    @njit(**EXACT)
    def values_at(w: int) -> int:
        return row * padded(w)

    @njit(**EXACT)
    def query_bytes(w: int) -> int:
        return 4 * padded(w)

    @njit(**EXACT)
    def prepare(q: Array, at: int, w: int, scale: np.float32, bytes_: Array, to: int) -> None:
        for i in range(padded(w)):
            value = q[at + i] * scale if i < w else np.float32(0.0)
            simd.poke_f32(bytes_, to + 4 * i, value)

    @njit(**EXACT)
    def append(
        k: Array, at: int, v: Array, from_: int, w: int, cache: Array, record: int, slot: int
    ) -> None:
        values = record + values_at(w)
        for i in range(0, padded(w), LANES):
            key, value = simd.load_up_to(k, at + i, w - i), simd.load_up_to(v, from_ + i, w - i)
            spread(cache, record + row * i + size * slot, row, key)
            put(cache, values + row * i + row * slot, value)

    @njit(**INNER)
    def scores(
        sums: tiles.Tile, cache: Array, p: int, pitch: int, bytes_: Array, x: int, stride: int,
        w: int, ahead: int,
    ) -> tiles.Tile:  # fmt: skip
        for i in range(w):
            if ahead > 0:
                steps.prefetch_rows(sums, cache, p + row * i + ahead, pitch)
            sums = step(sums, cache, p + row * i, pitch, bytes_, x + 4 * i, stride)
        return sums

    @njit(**INNER)
    def weigh(chances: simd.Vector, cache: Array, values: int) -> simd.Vector:
        return chances

    @njit(**INNER)
    def values(
        sums: tiles.Tile, cache: Array, p: int, record: int, bytes_: Array, x: int, stride: int,
        first: int, last: int, ahead: int,
    ) -> tiles.Tile:  # fmt: skip
        for j in range(first, last):
            q = p + j // LANES * record + row * (j % LANES)
            if ahead > 0:
                steps.prefetch_rows(sums, cache, q + ahead, row * LANES)
            sums = step(sums, cache, q, row * LANES, bytes_, x + 4 * j, stride)
        return sums

    def read(cache: Array, w: int) -> tuple[Array, Array]:
        wide = padded(w)
        whole = cache.view(dtype).reshape(-1, 2, LANES * wide)
        keys = whole[:, 0].reshape(-1, wide, LANES).transpose(0, 2, 1)[..., :w]
        blocks = whole[:, 1].reshape(-1, wide // LANES, LANES, LANES).transpose(0, 2, 1, 3)
        found = blocks.reshape(-1, LANES, wide)[..., :w]
        return keys.astype(np.float32), found.astype(np.float32)

    return Cache(
        name=name,
        record_bytes=record_bytes,
        values_at=values_at,
        query_bytes=query_bytes,
        prepare=prepare,
        append=append,
        scores=scores,
        weigh=weigh,
        values=values,
        block_bytes=row * LANES,
        read=read,
        rounded=lambda q: q.astype(np.float64),
    )


F32 = _floats("f32", 4, np.float32, steps.f32_products, simd.store_f32, simd.spread_f32)
F16 = _floats("f16", 2, np.float16, steps.f16_products, simd.store_f16, simd.spread_f16)


@njit(**EXACT)
def _record_bytes(w: int) -> int:
    return 2 * HEAD + LANES * ((w + 31) // 32 * 32 + padded(w))


@njit(**EXACT)
def _values_at(w: int) -> int:
    return HEAD + LANES * ((w + 31) // 32 * 32)


@njit(**EXACT)
def _prepare(q: Array, at: int, w: int, scale: np.float32, bytes_: Array, to: int) -> None:
    rounding.by_row(q, at, w, bytes_, to)
    simd.poke_f32(bytes_, to, simd.peek_f32(bytes_, to) * scale)


@njit(**EXACT)
def _step(x: Array, at: int, w: int) -> tuple[np.float32, np.float32]:
    """The scale of x[at:at+w] rounded to int8, NaN if any value is not finite, and its inverse."""
    top, bad = np.float32(0.0), np.float32(0.0)
    for i in range(w):
        top = max(top, abs(x[at + i]))
        bad += x[at + i] * np.float32(0.0)
    inverse = np.float32(127.0) / top if top > TINY else np.float32(0.0)
    return top / np.float32(127.0) + bad, inverse


@njit(**EXACT)
def _append(
    k: Array, at: int, v: Array, from_: int, w: int, cache: Array, record: int, slot: int
) -> None:
    values = record + _values_at(w)
    scale, inverse = _step(k, at, w)
    simd.poke_f32(cache, record + 4 * slot, scale)
    for i in range(w):
        q = np.int32(np.rint(k[at + i] * inverse))
        cache[record + HEAD + i // 4 * 64 + slot * 4 + i % 4] = np.uint8(q + np.int32(128))
    scale, inverse = _step(v, from_, w)
    simd.poke_f32(cache, values + 4 * slot, scale)
    for i in range(w):
        q = np.int32(np.rint(v[from_ + i] * inverse))
        block = values + HEAD + i // LANES * LANES * LANES
        cache[block + slot * LANES + i % LANES] = np.uint8(q & np.int32(255))


@njit(**INNER)
def _scores(
    sums: tiles.Tile, cache: Array, p: int, pitch: int, bytes_: Array, x: int, stride: int,
    w: int, ahead: int,
) -> tiles.Tile:  # fmt: skip
    total = steps.biased_starts(tiles.integers(sums), bytes_, x + 4, stride)
    for i in range(0, (w + 31) // 32 * 32, LANES):
        q = p + HEAD + LANES * i
        if ahead > 0:
            for line in range(0, 256, 64):
                steps.prefetch_rows(sums, cache, q + ahead + line, pitch)
        total = steps.byte_dots(total, cache, q, pitch, bytes_, x + rounding.HEADER + i, stride)
    return steps.scaled(sums, total, cache, p, pitch, bytes_, x, stride)


@njit(**INNER)
def _weigh(chances: simd.Vector, cache: Array, values: int) -> simd.Vector:
    return simd.multiply(chances, simd.load_f32(cache, values))


@njit(**INNER)
def _values(
    sums: tiles.Tile, cache: Array, p: int, record: int, bytes_: Array, x: int, stride: int,
    first: int, last: int, ahead: int,
) -> tiles.Tile:  # fmt: skip
    for j in range(first, last):
        q = p + HEAD + j // LANES * record + LANES * (j % LANES)
        if ahead > 0 and j % 4 == 0:
            steps.prefetch_rows(sums, cache, q + ahead, LANES * LANES)
        sums = steps.i8_products(sums, cache, q, LANES * LANES, bytes_, x + 4 * j, stride)
    return sums


def _read(cache: Array, w: int) -> tuple[Array, Array]:
    wide, records = (w + 31) // 32 * 32, cache.reshape(-1, _record_bytes(w))
    at = _values_at(w)

    def scales(part: Array) -> Array:
        return np.ascontiguousarray(part).view(np.float32)[..., None]

    quads = records[:, HEAD:at].reshape(-1, wide // 4, LANES, 4).transpose(0, 2, 1, 3)
    keys = (quads.reshape(-1, LANES, wide)[..., :w].astype(np.float32) - 128) * scales(
        records[:, :HEAD]
    )
    blocks = records[:, at + HEAD :].view(np.int8).reshape(-1, padded(w) // LANES, LANES, LANES)
    found = blocks.transpose(0, 2, 1, 3).reshape(-1, LANES, padded(w))[..., :w]
    return keys, found.astype(np.float32) * scales(records[:, at : at + HEAD])


INT8 = Cache(
    name="int8",
    record_bytes=_record_bytes,
    values_at=_values_at,
    query_bytes=rounding.row_bytes,
    prepare=_prepare,
    append=_append,
    scores=_scores,
    weigh=_weigh,
    values=_values,
    block_bytes=LANES * LANES,
    read=_read,
    rounded=rounding.rounded_row,
)
KINDS = {cache.name: cache for cache in (F32, F16, INT8)}
