"""One head's queries over its cache: a cache -> `attend`, and the SPEC of attention over it.

Blocks of 64 tokens, with a running maximum and a running sum, so that the past is read once and in
order (Milakov & Gimelshein 2018; Dao et al. 2022). Several queries share what is read: those of a
prompt's neighbouring tokens, and those of one group. What a query adds up, and in which order,
does not depend on its company, so a prompt gives the same bits as single tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from kernels import simd, tiles
from kernels.caches import Cache, padded
from kernels.maths import exp, shrink
from kernels.simd import EXACT, F32, INNER, LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

BLOCK = 4 * LANES  # tokens: as many as a running maximum serves at once
RECORDS = BLOCK // LANES
ROWS, VECTORS = tiles.PLAIN.rows, tiles.PLAIN.vectors


@njit(**EXACT)
def room_for(tokens: int) -> int:
    """Tokens a cache is laid out for: whole blocks."""
    return (tokens + BLOCK - 1) // BLOCK * BLOCK


@njit(**EXACT)
def scratch_values(w: int) -> int:
    """Floats that `attend` works in: queries, scores, tops, sums of chances and of values."""
    return VECTORS * (2 * padded(w) + 64 + BLOCK + 2 * LANES)


def attend_over(cache: Cache) -> Callable[..., None]:
    """`attend` for one kind of cache."""
    many, one = tiles.zeros(F32, ROWS, VECTORS), tiles.zeros(F32, ROWS, 1)
    many_flat, one_flat = tiles.zeros(F32, 1, VECTORS), tiles.zeros(F32, 1, 1)
    record_bytes, values_at, query_bytes = cache.record_bytes, cache.values_at, cache.query_bytes
    prepare, scores_of, weigh, values_of = cache.prepare, cache.scores, cache.weigh, cache.values
    block_bytes = cache.block_bytes

    @njit(**INNER)
    def score(
        sums: tiles.Tile, past: Array, p: int, w: int, bytes_: Array, x: int, scratch: Array,
        to: int, ahead: int,
    ) -> None:  # fmt: skip
        """Scores of a tile's queries, the first at byte x, for the block at byte p of the past."""
        record = record_bytes(w)
        for r in range(0, RECORDS, ROWS):
            found = scores_of(
                sums, past, p + r * record, record, bytes_, x, query_bytes(w), w, ahead
            )
            tiles.store(found, scratch, to + r * LANES, BLOCK)

    @njit(**INNER)
    def soften(
        past: Array, p: int, w: int, count: int, scratch: Array, scores: int, top_at: int,
        mass_at: int, mixed: int,
    ) -> None:  # fmt: skip
        """Scores of `count` tokens of a block -> chances, less a new top where there is one."""
        simd.stand_apart()
        low, zero = simd.splat_f32(np.float32(-np.inf)), simd.splat_f32(np.float32(0.0))
        peak = low
        for r in range(RECORDS):
            v = simd.load_f32(scratch, scores + r * LANES)
            v = simd.first(v, np.int32(count - r * LANES), low)
            simd.store_f32(scratch, scores + r * LANES, v)
            peak = simd.greater(peak, v)
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
        for r in range(RECORDS):
            v = simd.load_f32(scratch, scores + r * LANES)
            chance = shrink(simd.subtract(v, highest))
            chance = simd.first(chance, np.int32(count - r * LANES), zero)
            mass = simd.add(mass, chance)
            if r * LANES < count:
                values = p + r * record_bytes(w) + values_at(w)
                simd.store_f32(scratch, scores + r * LANES, weigh(chance, past, values))
        simd.store_f32(scratch, mass_at, mass)

    @njit(**INNER)
    def mix(
        sums: tiles.Tile, flat: tiles.Tile, past: Array, p: int, w: int, first: int, last: int,
        bytes_: Array, scratch: Array, scores: int, mixed: int, ahead: int,
    ) -> None:  # fmt: skip
        """Add the values of tokens first..last of a block, by their chances, to a tile's sums."""
        simd.stand_apart()
        wide, record, start = padded(w), record_bytes(w), p + values_at(w)
        whole = wide // (ROWS * LANES) * ROWS
        for b in range(0, whole, ROWS):
            at = mixed + b * LANES
            found = values_of(
                tiles.load(sums, scratch, at, wide), past, start + b * block_bytes, record,
                bytes_, 4 * scores, 4 * BLOCK, first, last, ahead,
            )  # fmt: skip
            tiles.store(found, scratch, at, wide)
        for b in range(whole, wide // LANES):
            at = mixed + b * LANES
            found = values_of(
                tiles.load(flat, scratch, at, wide), past, start + b * block_bytes, record,
                bytes_, 4 * scores, 4 * BLOCK, first, last, ahead,
            )  # fmt: skip
            tiles.store(found, scratch, at, wide)

    @njit(**INNER)
    def group(
        sums: tiles.Tile, flat: tiles.Tile, count: int, q: Array, at: int, pitch: int, each: int,
        g: int, depth: int, w: int, past: Array, start: int, scratch: Array, room: int,
        out: Array, to: int, out_pitch: int,
    ) -> None:  # fmt: skip
        """Queries g..g+count of those of `attend`, as many as the tiles have vectors."""
        simd.stand_apart()
        wide, record, bytes_ = padded(w), record_bytes(w), scratch.view(np.uint8)
        scores = room + VECTORS * (wide + 64)
        tops = scores + VECTORS * BLOCK
        masses = tops + VECTORS * LANES
        mixed = masses + VECTORS * LANES
        zero = simd.splat_f32(np.float32(0.0))
        scale = np.float32(1.0) / np.sqrt(np.float32(w))
        for t in range(count):
            query = at + (g + t) // each * pitch + (g + t) % each * w
            prepare(q, query, w, scale, bytes_, 4 * room + t * query_bytes(w))
            scratch[tops + t] = np.float32(-np.inf)
            simd.store_f32(scratch, masses + t * LANES, zero)
            for i in range(0, wide, LANES):
                simd.store_f32(scratch, mixed + t * wide + i, zero)
        shortest, longest = depth + g // each + 1, depth + (g + count - 1) // each + 1
        for begin in range(0, longest, BLOCK):
            p = start + begin // LANES * record
            # a single query waits for memory, and a block is too short for it to be foreseen
            ahead = 0 * record if count == 1 and begin + BLOCK < longest else 0
            score(sums, past, p, w, bytes_, 4 * room, scratch, scores, ahead)
            for t in range(count):
                seen = min(BLOCK, depth + (g + t) // each + 1 - begin)
                if seen > 0:
                    soften(
                        past, p, w, seen, scratch, scores + t * BLOCK, tops + t,
                        masses + t * LANES, mixed + t * wide,
                    )  # fmt: skip
            common = max(0, min(BLOCK, shortest - begin))
            mix(
                sums,
                flat,
                past,
                p,
                w,
                simd.opaque(0),
                common,
                bytes_,
                scratch,
                scores,
                mixed,
                ahead,
            )
            for t in range(count):
                seen = min(BLOCK, depth + (g + t) // each + 1 - begin)
                if seen > common:  # what the first query of the group may not see
                    mix(
                        one(), one_flat(), past, p, w, common, seen, bytes_, scratch,
                        scores + t * BLOCK, mixed + t * wide, simd.opaque(0),
                    )  # fmt: skip
        for t in range(count):
            mass = simd.sum_f32(simd.load_f32(scratch, masses + t * LANES))
            inverse = np.float32(1.0) / mass
            target = to + (g + t) // each * out_pitch + (g + t) % each * w
            for i in range(w):
                out[target + i] = scratch[mixed + t * wide + i] * inverse

    @njit(**EXACT)
    def attend(
        q: Array, at: int, pitch: int, each: int, n: int, depth: int, w: int, past: Array,
        start: int, scratch: Array, room: int, out: Array, to: int, out_pitch: int,
    ) -> None:  # fmt: skip
        """n tokens with `each` queries of w values over the past of one head, bytes from `start`.

        Query e of token t is q[at + t*pitch + e*w:][:w] and sees depth + t + 1 tokens, which are
        in the cache; its result goes to out[to + t*out_pitch + e*w:][:w]. Works in
        scratch[room : room + scratch_values(w)].
        """
        together = n * each // VECTORS * VECTORS
        for g in range(0, together, VECTORS):
            group(
                many(), many_flat(), VECTORS, q, at, pitch, each, g, depth, w, past, start,
                scratch, room, out, to, out_pitch,
            )  # fmt: skip
        for g in range(together, n * each):
            group(
                one(), one_flat(), 1, q, at, pitch, each, g, depth, w, past, start,
                scratch, room, out, to, out_pitch,
            )  # fmt: skip

    return attend


def attention(name: str, cache: Cache, attend: Callable[..., None]) -> Kernel:
    """Causal attention of n new tokens over a cache that holds `depth`, to which they are added.

    Sizes: n tokens, h query heads, g key-value heads (h a multiple of g), w values a head, c
    tokens of room in the cache.
    """
    record_bytes, append = cache.record_bytes, cache.append

    @njit(**OPTIONS)
    def run(
        depth: Array, q: Array, k: Array, v: Array, past: Array, scratch: Array, y: Array,
        first: int, last: int,
    ) -> None:  # fmt: skip
        n, h, w = q.shape
        g, each, own = past.shape[0], h // past.shape[0], scratch.shape[1]
        new_k, new_v = k.reshape(n * g * w), v.reshape(n * g * w)
        flat_q, out, room = q.reshape(n * h * w), y.reshape(n * h * w), scratch.reshape(g * own)
        cached = past.reshape(past.size)
        for head in range(first, last):
            start = head * past.shape[1]
            for t in range(n):
                at, place = (t * g + head) * w, depth[0] + t
                record = start + place // LANES * record_bytes(w)
                append(new_k, at, new_v, at, w, cached, record, place % LANES)
            attend(
                flat_q, head * each * w, h * w, each, n, depth[0], w, cached, start,
                room, head * own, out, head * each * w, h * w,
            )  # fmt: skip

    def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
        """A cache to which as many random tokens were added as `depth` says."""
        n, h, g, w, c = (sizes[name] for name in "nhgwc")
        depth = int(rng.integers(0, c - n + 1))
        new = [rng.standard_normal(s).astype(np.float32) for s in ((n, h, w), (n, g, w), (n, g, w))]
        past = np.zeros((g, head_bytes(sizes)), np.uint8)
        for head in range(g):
            for t in range(depth):
                kv = rng.standard_normal(2 * w).astype(np.float32)
                append(kv, 0, kv, w, w, past[head], t // LANES * record_bytes(w), t % LANES)
        return np.array([depth]), *new, past

    def reference(
        sizes: Sizes, depth: Array, q: Array, k: Array, v: Array, past: Array
    ) -> tuple[Array, ...]:
        import torch

        n, w, start = sizes["n"], sizes["w"], int(depth[0])
        state = past.copy()
        for head in range(sizes["g"]):
            for t in range(start, start + n):
                new = [np.ascontiguousarray(a[t - start, head]) for a in (k, v)]
                record = t // LANES * record_bytes(w)
                append(new[0], 0, new[1], 0, w, state[head], record, t % LANES)
        kept = [np.stack(a) for a in zip(*(cache.read(part, w) for part in state), strict=True)]
        K, V = (
            torch.from_numpy(a.reshape(sizes["g"], -1, w)[:, : start + n]).double()
            .repeat_interleave(sizes["h"] // sizes["g"], 0) for a in kept
        )  # fmt: skip
        seen = torch.arange(start + n)[None] <= start + torch.arange(n)[:, None]
        query = torch.from_numpy(cache.rounded(q)).transpose(0, 1)
        scores = query @ K.transpose(1, 2) / w**0.5
        chances = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        return (chances @ V).transpose(0, 1).numpy(), state

    def head_bytes(sizes: Sizes) -> int:
        return room_for(sizes["c"]) // LANES * record_bytes(sizes["w"])

    def cost(sizes: Sizes) -> Cost:
        """At half the room: per query and past token two dot products and 5 for the softmax.

        Moved: q and y, the new k and v read and appended, the past keys and values.
        """
        n, h, g, w, c = (sizes[name] for name in "nhgwc")
        past = (c - n) // 2
        token = record_bytes(w) // LANES
        return Cost(
            operations=n * h * (past + n) * (4 * w + 5),
            moved_bytes=8 + 8 * n * h * w + 8 * n * g * w + (past + n) * g * token,
        )

    def settle(sizes: Sizes) -> Sizes:
        h = -(-sizes["h"] // sizes["g"]) * sizes["g"]
        return {**sizes, "h": h, "c": max(sizes["c"], sizes["n"])}

    return Kernel(
        name=name,
        arguments=(
            Argument("depth", "input", np.int64, (1,)),
            Argument("q", "input", np.float32, ("n", "h", "w")),
            Argument("k", "input", np.float32, ("n", "g", "w")),
            Argument("v", "input", np.float32, ("n", "g", "w")),
            Argument("past", "state", np.uint8, ("g", head_bytes)),
            Argument("scratch", "scratch", np.float32, ("g", lambda s: scratch_values(s["w"]))),
            Argument("y", "output", np.float32, ("n", "h", "w")),
        ),
        example={"n": 2, "h": 4, "g": 2, "w": 32, "c": 16},
        inputs=inputs,
        items=lambda s: s["g"],
        run=run,
        reference=reference,
        cost=cost,
        rtol=1e-5,
        nan="propagates",
        source="Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 (grouped queries)",
        settle=settle,
    )
