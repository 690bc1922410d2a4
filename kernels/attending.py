"""One head's queries over its cache: a cache -> `attend`.

All scores of a span of tokens come before their values, so that keys and values are each read once
and in order; between spans a running maximum and sums are carried on (Milakov & Gimelshein 2018;
Dao et al. 2022). Several queries share what is read: those of a prompt's neighbouring tokens, and
those of one group. What a query adds up, and in which order, does not depend on its company, so a
prompt gives the same bits as single tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from kernels import simd, tiles
from kernels.caches import Cache, padded
from kernels.maths import exp, shrink
from kernels.simd import EXACT, F32, INNER, LANES
from kernels.spec import Array

SPAN = 4096  # tokens: memory is read in pieces long enough for it to be foreseen
ROWS, VECTORS = tiles.PLAIN.rows, tiles.PLAIN.vectors


@njit(**EXACT)
def room_for(tokens: int) -> int:
    """Tokens a cache is laid out for: whole records."""
    return (tokens + LANES - 1) // LANES * LANES


@njit(**EXACT)
def span_of(room: int) -> int:
    return min(SPAN, room_for(room))


@njit(**EXACT)
def scratch_values(w: int, room: int) -> int:
    """Floats that `attend` works in: queries, scores, tops, sums of chances and of values."""
    return VECTORS * (2 * padded(w) + 64 + span_of(room) + 2 * LANES)


def attend_over(cache: Cache, leaning: bool = False) -> Callable[..., None]:
    """`attend` for one kind of cache; leaning: with a bias that falls with distance.

    Such an `attend` takes two more arguments, slopes and a place in it: query e of a token adds
    slopes[place + e] * (p - position of its token) to its score of token p (Press et al. 2021).
    """
    many_scores, one_score = (tiles.zeros(F32, cache.rows, n) for n in (VECTORS, 1))
    many, one = tiles.zeros(F32, ROWS, VECTORS), tiles.zeros(F32, ROWS, 1)
    many_flat, one_flat = tiles.zeros(F32, 1, VECTORS), tiles.zeros(F32, 1, 1)
    key_bytes, value_bytes, query_bytes = cache.key_bytes, cache.value_bytes, cache.query_bytes
    prepare, scores_of, weigh, values_of = cache.prepare, cache.scores, cache.weigh, cache.values

    @njit(**INNER)
    def soften(
        past: Array, values: int, w: int, count: int, scratch: Array, scores: int, top_at: int,
        mass_at: int, mixed: int,
    ) -> None:  # fmt: skip
        """Scores of `count` tokens of a span -> chances, less a new top where there is one."""
        simd.stand_apart()
        low, zero = simd.splat_f32(np.float32(-np.inf)), simd.splat_f32(np.float32(0.0))
        peak, whole = low, count // LANES * LANES
        for i in range(0, whole, LANES):
            peak = simd.greater(peak, simd.load_f32(scratch, scores + i))
        if whole < count:
            last = simd.first(simd.load_f32(scratch, scores + whole), np.int32(count - whole), low)
            simd.store_f32(scratch, scores + whole, last)
            peak = simd.greater(peak, last)
        before = scratch[top_at]
        top = max(before, simd.largest(peak))
        mass = simd.load_f32(scratch, mass_at)
        if top > before:
            scratch[top_at] = top
            less = simd.splat_f32(exp(before - top))
            mass = simd.multiply(mass, less)
            for i in range(0, padded(w), LANES):
                value = simd.load_f32(scratch, mixed + i)
                simd.store_f32(scratch, mixed + i, simd.multiply(value, less))
        highest = simd.splat_f32(top)
        for i in range(0, count, LANES):
            chance = shrink(simd.subtract(simd.load_f32(scratch, scores + i), highest))
            if i == whole:
                chance = simd.first(chance, np.int32(count - whole), zero)
            mass = simd.add(mass, chance)
            record = values + i // LANES * value_bytes(w)
            simd.store_f32(scratch, scores + i, weigh(chance, past, record))
        simd.store_f32(scratch, mass_at, mass)

    @njit(**INNER)
    def lean(scratch: Array, scores: int, count: int, first: int, slope: np.float32) -> None:
        """Add slope * (first + i) to score i."""
        simd.stand_apart()
        for i in range(count):
            scratch[scores + i] += slope * np.float32(first + i)

    @njit(**INNER)
    def mix(
        sums: tiles.Tile, flat: tiles.Tile, past: Array, values: int, w: int, first: int,
        last: int, bytes_: Array, scratch: Array, scores: int, span: int, mixed: int,
    ) -> None:  # fmt: skip
        """Add the values of tokens first..last of a span, by their chances, to a tile's sums."""
        simd.stand_apart()
        wide = padded(w)
        whole = wide // (ROWS * LANES) * ROWS
        for b in range(0, whole, ROWS):
            at = mixed + b * LANES
            found = values_of(
                tiles.load(sums, scratch, at, wide), past, values, b, w, bytes_, 4 * scores,
                4 * span, first, last,
            )  # fmt: skip
            tiles.store(found, scratch, at, wide)
        for b in range(whole, wide // LANES):
            at = mixed + b * LANES
            found = values_of(
                tiles.load(flat, scratch, at, wide), past, values, b, w, bytes_, 4 * scores,
                4 * span, first, last,
            )  # fmt: skip
            tiles.store(found, scratch, at, wide)

    @njit(**INNER)
    def group(
        zeros: tiles.Tile, sums: tiles.Tile, flat: tiles.Tile, count: int, q: Array, at: int,
        pitch: int, each: int, g: int, depth: int, w: int, past: Array, start: int, room: int,
        scratch: Array, own: int, out: Array, to: int, out_pitch: int, slopes: Array, slope_at: int,
    ) -> None:  # fmt: skip
        """Queries g..g+count of those of `attend`, as many as the tiles have vectors."""
        simd.stand_apart()
        wide, span, bytes_ = padded(w), span_of(room), scratch.view(np.uint8)
        scores = own + VECTORS * (wide + 64)
        tops = scores + VECTORS * span
        masses = tops + VECTORS * LANES
        mixed = masses + VECTORS * LANES
        none = simd.splat_f32(np.float32(0.0))
        scale = np.float32(1.0) / np.sqrt(np.float32(w))
        for t in range(count):
            query = at + (g + t) // each * pitch + (g + t) % each * w
            prepare(q, query, w, scale, bytes_, 4 * own + t * query_bytes(w))
            scratch[tops + t] = np.float32(-np.inf)
            simd.store_f32(scratch, masses + t * LANES, none)
            for i in range(0, wide, LANES):
                simd.store_f32(scratch, mixed + t * wide + i, none)
        shortest, longest = depth + g // each + 1, depth + (g + count - 1) // each + 1
        keys, values = start, start + room_for(room) // LANES * key_bytes(w)
        for begin in range(0, longest, span):
            records = (min(span, longest - begin) + LANES - 1) // LANES
            scores_of(
                zeros, past, keys, records, bytes_, 4 * own, query_bytes(w), w, scratch, scores,
                span,
            )  # fmt: skip
            for t in range(count):
                seen = min(span, depth + (g + t) // each + 1 - begin)
                if seen > 0:
                    if leaning:
                        ahead = begin - depth - (g + t) // each
                        slope = slopes[slope_at + (g + t) % each]
                        lean(scratch, scores + t * span, seen, ahead, slope)
                    soften(
                        past, values, w, seen, scratch, scores + t * span, tops + t,
                        masses + t * LANES, mixed + t * wide,
                    )  # fmt: skip
            common = max(0, min(span, shortest - begin))
            mix(
                sums, flat, past, values, w, simd.opaque(0), common, bytes_, scratch, scores,
                span, mixed,
            )  # fmt: skip
            for t in range(count):
                seen = min(span, depth + (g + t) // each + 1 - begin)
                if seen > common:  # what the first query of the group may not see
                    mix(
                        one(), one_flat(), past, values, w, common, seen, bytes_, scratch,
                        scores + t * span, span, mixed + t * wide,
                    )  # fmt: skip
            keys += records * key_bytes(w)
            values += records * value_bytes(w)
        for t in range(count):
            mass = simd.sum_f32(simd.load_f32(scratch, masses + t * LANES))
            inverse = np.float32(1.0) / mass
            target = to + (g + t) // each * out_pitch + (g + t) % each * w
            for i in range(w):
                out[target + i] = scratch[mixed + t * wide + i] * inverse

    @njit(**EXACT)
    def attend_leaning(
        q: Array, at: int, pitch: int, each: int, n: int, depth: int, w: int, past: Array,
        start: int, room: int, scratch: Array, own: int, out: Array, to: int, out_pitch: int,
        slopes: Array, slope_at: int,
    ) -> None:  # fmt: skip
        """n tokens with `each` queries of w values over the past of one head, bytes from `start`.

        Query e of token t is q[at + t*pitch + e*w:][:w] and sees depth + t + 1 tokens, which are
        in the cache, laid out for `room`; its result goes to out[to + t*out_pitch + e*w:][:w].
        Works in scratch[own : own + scratch_values(w, room)].
        """
        together = n * each // VECTORS * VECTORS
        for g in range(0, together, VECTORS):
            group(
                many_scores(), many(), many_flat(), VECTORS, q, at, pitch, each, g, depth, w,
                past, start, room, scratch, own, out, to, out_pitch, slopes, slope_at,
            )  # fmt: skip
        for g in range(together, n * each):
            group(
                one_score(), one(), one_flat(), 1, q, at, pitch, each, g, depth, w, past, start,
                room, scratch, own, out, to, out_pitch, slopes, slope_at,
            )  # fmt: skip

    @njit(**EXACT)
    def attend(
        q: Array, at: int, pitch: int, each: int, n: int, depth: int, w: int, past: Array,
        start: int, room: int, scratch: Array, own: int, out: Array, to: int, out_pitch: int,
    ) -> None:  # fmt: skip
        """`attend_leaning` without slopes."""
        attend_leaning(
            q, at, pitch, each, n, depth, w, past, start, room, scratch, own, out, to, out_pitch,
            scratch, 0,
        )  # fmt: skip

    return attend_leaning if leaning else attend


def append_over(cache: Cache) -> Callable[..., None]:
    """`append` for one kind of cache: token `place` of a head at byte `start` of the past."""
    key_bytes, value_bytes, store = cache.key_bytes, cache.value_bytes, cache.append

    @njit(**EXACT)
    def append(
        k: Array, at: int, v: Array, from_: int, w: int, past: Array, start: int, room: int,
        place: int,
    ) -> None:  # fmt: skip
        record = place // LANES
        keys = start + record * key_bytes(w)
        values = start + room_for(room) // LANES * key_bytes(w) + record * value_bytes(w)
        store(k, at, v, from_, w, past, keys, values, place % LANES)

    return append
