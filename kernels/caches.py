"""How keys and values of past tokens are kept: two streams a head, sixteen tokens a record.

Keys lie with tokens abreast, so that sixteen scores need no shuffling, values with features
abreast; each is a small weight matrix that grows, and what multiplies weights multiplies it. A
prompt or a token reads all keys in order, then all values.

    head      | keys: record 0, record 1, ... | values: record 0, record 1, ... |
    f32, f16  | k[tokens, 0] | k[tokens, 1] | ...     | v[0, features] | v[1, features] | ...
    int8      | 16 scales | k[tokens, 0..3] | ...     | 16 scales | v[0, features] | ...
                float32     as in matvec_int8           float32, one a token

Features are padded to sixteens, in int8 keys to 32.
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
CHAINS = tiles.PLAIN.rows  # sums of one score that grow at once, so that none waits for itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """One way to keep keys and values, as compiled functions. Places are bytes, unless said.

    token_bytes(w): what must be kept of one token of one head
    key_bytes(w), value_bytes(w): length of a record of keys, and of values
    query_bytes(w): length of a prepared query
    prepare(q, at, w, scale, bytes, to): scale * q[at:at+w], ready for `scores`; at counts floats
    append(k, at, v, from_, w, cache, keys, values, slot): token `slot` of the records at keys and
        values; at and from_ count floats
    scores(zeros, cache, keys, records, bytes, x, stride, w, out, to, pitch): of the tile's queries,
        `stride` apart, for the tokens of all records: query t to out[to + t*pitch :]
    weigh(chances, cache, values) -> the chances of sixteen tokens times what scales their values
    values(sums, cache, values, block, w, bytes, x, stride, first, last) -> tile: sums + features
        from block*16 on, times the chances of tokens first..last
    rows: of the tile of zeros that `scores` takes
    read(cache, w) -> keys and values (tokens, w) float32, of a whole head
    rounded(q) -> queries (...,w) as `scores` sees them, float64
    """

    name: str
    token_bytes: Callable[[int], int]
    key_bytes: Callable[[int], int]
    value_bytes: Callable[[int], int]
    query_bytes: Callable[[int], int]
    prepare: Callable[..., None]
    append: Callable[..., None]
    scores: Callable[..., None]
    weigh: Callable[..., Any]
    values: Callable[..., Any]
    rows: int
    read: Callable[[Array, int], tuple[Array, Array]]
    rounded: Callable[[Array], Array]


@njit(**EXACT)
def padded(w: int) -> int:
    return (w + LANES - 1) // LANES * LANES


def _floats(
    name: str, size: int, dtype: type[np.generic], abreast: Any, step: Any, put: Any, spread: Any
) -> Cache:
    """A cache of floats of `size` bytes; put and spread store sixteen in a row, and apart."""
    row = LANES * size

    @njit(**EXACT)
    def record_bytes(w: int) -> int:
        return row * padded(w)

    @njit(**EXACT)
    def query_bytes(w: int) -> int:
        return 4 * padded(w)

    @njit(**EXACT)
    def prepare(q: Array, at: int, w: int, scale: np.float32, bytes_: Array, to: int) -> None:
        for i in range(0, padded(w), LANES):
            value = simd.multiply(simd.load_up_to(q, at + i, w - i), simd.splat_f32(scale))
            simd.store_f32(bytes_, to + 4 * i, value)

    @njit(**EXACT)
    def append(
        k: Array, at: int, v: Array, from_: int, w: int, cache: Array, keys: int, values: int,
        slot: int,
    ) -> None:  # fmt: skip
        for i in range(0, padded(w), LANES):
            key, value = simd.load_up_to(k, at + i, w - i), simd.load_up_to(v, from_ + i, w - i)
            spread(cache, keys + row * i + size * slot, row, key)
            put(cache, values + size * (padded(w) * slot + i), value)

    @njit(**INNER)
    def scores(
        zeros: tiles.Tile, cache: Array, keys: int, records: int, bytes_: Array, x: int,
        stride: int, w: int, out: Array, to: int, pitch: int,
    ) -> None:  # fmt: skip
        for r in range(records):
            p, sums = keys + r * record_bytes(w), zeros
            for i in range(0, padded(w), CHAINS):
                sums = abreast(sums, cache, p + row * i, row, bytes_, x + 4 * i, stride)
            steps.store_folded(sums, out, to + r * LANES, pitch)

    @njit(**INNER)
    def weigh(chances: simd.Vector, cache: Array, values: int) -> simd.Vector:
        return chances

    @njit(**INNER)
    def values(
        sums: tiles.Tile, cache: Array, values: int, block: int, w: int, bytes_: Array, x: int,
        stride: int, first: int, last: int,
    ) -> tiles.Tile:  # fmt: skip
        p, token = values + row * block, size * padded(w)
        for j in range(first, last):
            sums = step(sums, cache, p + token * j, row, bytes_, x + 4 * j, stride)
        return sums

    def read(cache: Array, w: int) -> tuple[Array, Array]:
        wide = padded(w)
        both = cache.view(dtype).reshape(2, -1)
        keys = both[0].reshape(-1, wide, LANES).transpose(0, 2, 1).reshape(-1, wide)
        found = both[1].reshape(-1, wide)
        return keys[:, :w].astype(np.float32), found[:, :w].astype(np.float32)

    return Cache(
        name=name,
        token_bytes=lambda w: 2 * size * w,
        key_bytes=record_bytes,
        value_bytes=record_bytes,
        query_bytes=query_bytes,
        prepare=prepare,
        append=append,
        scores=scores,
        weigh=weigh,
        values=values,
        rows=CHAINS,
        read=read,
        rounded=lambda q: q.astype(np.float64),
    )


F32 = _floats(
    "f32", 4, np.float32, steps.f32_abreast, steps.f32_products, simd.store_f32, simd.spread_f32
)
F16 = _floats(
    "f16", 2, np.float16, steps.f16_abreast, steps.f16_products, simd.store_f16, simd.spread_f16
)


@njit(**EXACT)
def _key_bytes(w: int) -> int:
    return HEAD + LANES * ((w + 31) // 32 * 32)


@njit(**EXACT)
def _value_bytes(w: int) -> int:
    return HEAD + LANES * padded(w)


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
    k: Array, at: int, v: Array, from_: int, w: int, cache: Array, keys: int, values: int,
    slot: int,
) -> None:  # fmt: skip
    scale, inverse = _step(k, at, w)
    simd.poke_f32(cache, keys + 4 * slot, scale)
    for i in range(w):
        q = np.int32(np.rint(k[at + i] * inverse))
        cache[keys + HEAD + i // 4 * 64 + slot * 4 + i % 4] = np.uint8(q + np.int32(128))
    scale, inverse = _step(v, from_, w)
    simd.poke_f32(cache, values + 4 * slot, scale)
    for i in range(w):
        q = np.int32(np.rint(v[from_ + i] * inverse))
        cache[values + HEAD + slot * padded(w) + i] = np.uint8(q & np.int32(255))


@njit(**INNER)
def _scores(
    zeros: tiles.Tile, cache: Array, keys: int, records: int, bytes_: Array, x: int, stride: int,
    w: int, out: Array, to: int, pitch: int,
) -> None:  # fmt: skip
    record, y = _key_bytes(w), x + rounding.HEADER
    for r in range(records):
        p = keys + r * record
        total = steps.biased_starts(tiles.integers(zeros), bytes_, x + 4, stride)
        for i in range(0, (w + 31) // 32 * 32, LANES):
            total = steps.byte_dots(total, cache, p + HEAD + LANES * i, 0, bytes_, y + i, stride)
        tiles.store(
            steps.scaled(zeros, total, cache, p, 0, bytes_, x, stride), out, to + r * LANES, pitch
        )


@njit(**INNER)
def _weigh(chances: simd.Vector, cache: Array, values: int) -> simd.Vector:
    return simd.multiply(chances, simd.load_f32(cache, values))


@njit(**INNER)
def _values(
    sums: tiles.Tile, cache: Array, values: int, block: int, w: int, bytes_: Array, x: int,
    stride: int, first: int, last: int,
) -> tiles.Tile:  # fmt: skip
    wide, record = padded(w), _value_bytes(w)
    p = values + HEAD + LANES * block
    for j in range(first, last):
        q = p + j // LANES * record + wide * (j % LANES)
        sums = steps.i8_products(sums, cache, q, LANES, bytes_, x + 4 * j, stride)
    return sums


def _read(cache: Array, w: int) -> tuple[Array, Array]:
    wide, records = (w + 31) // 32 * 32, cache.size // (_key_bytes(w) + _value_bytes(w))
    cut = records * _key_bytes(w)
    keys, values = cache[:cut].reshape(records, -1), cache[cut:].reshape(records, -1)

    def scales(part: Array) -> Array:
        return np.ascontiguousarray(part[:, :HEAD]).view(np.float32)[..., None]

    quads = keys[:, HEAD:].reshape(-1, wide // 4, LANES, 4).transpose(0, 2, 1, 3)
    k = (quads.reshape(-1, LANES, wide).astype(np.float32) - 128) * scales(keys)
    v = values[:, HEAD:].view(np.int8).reshape(-1, LANES, padded(w)) * scales(values)
    return k.reshape(-1, wide)[:, :w], v.reshape(-1, padded(w))[:, :w].astype(np.float32)


INT8 = Cache(
    name="int8",
    token_bytes=lambda w: 8 + 2 * w,
    key_bytes=_key_bytes,
    value_bytes=_value_bytes,
    query_bytes=rounding.row_bytes,
    prepare=_prepare,
    append=_append,
    scores=_scores,
    weigh=_weigh,
    values=_values,
    rows=1,
    read=_read,
    rounded=rounding.rounded_row,
)
KINDS = {cache.name: cache for cache in (F32, F16, INT8)}
