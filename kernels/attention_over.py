"""A cache -> the SPEC of causal attention over it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from kernels.attending import room_for, scratch_values
from kernels.caches import Cache
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes


def attention(
    name: str, cache: Cache, attend: Callable[..., None], append: Callable[..., None]
) -> Kernel:
    """Causal attention of n new tokens over a cache that holds `depth`, to which they are added.

    Sizes: n tokens, h query heads, g key-value heads (h a multiple of g), w values a head, c
    tokens of room in the cache.
    """
    key_bytes, value_bytes = cache.key_bytes, cache.value_bytes

    @njit(**OPTIONS)
    def run(
        depth: Array, q: Array, k: Array, v: Array, past: Array, scratch: Array, y: Array,
        first: int, last: int,
    ) -> None:  # fmt: skip
        n, h, w = q.shape
        g, each, own = past.shape[0], h // past.shape[0], scratch.shape[1]
        new_k, new_v = k.reshape(n * g * w), v.reshape(n * g * w)
        flat_q, out, mine = q.reshape(n * h * w), y.reshape(n * h * w), scratch.reshape(g * own)
        cached, record = past.reshape(past.size), key_bytes(w) + value_bytes(w)
        room = past.shape[1] // record * LANES
        for head in range(first, last):
            start = head * past.shape[1]
            for t in range(n):
                at = (t * g + head) * w
                append(new_k, at, new_v, at, w, cached, start, room, depth[0] + t)
            attend(
                flat_q, head * each * w, h * w, each, n, depth[0], w, cached, start, room,
                mine, head * own, out, head * each * w, h * w,
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
                append(kv, 0, kv, w, w, past[head], 0, c, t)
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
                append(new[0], 0, new[1], 0, w, state[head], 0, sizes["c"], t)
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
        record = cache.key_bytes(sizes["w"]) + cache.value_bytes(sizes["w"])
        return room_for(sizes["c"]) // LANES * record

    def head_scratch(sizes: Sizes) -> int:
        return scratch_values(sizes["w"], sizes["c"])

    def cost(sizes: Sizes) -> Cost:
        """At half the room: per query and past token two dot products and 5 for the softmax.

        Moved: q and y, the new k and v read and appended, the past keys and values.
        """
        n, h, g, w, c = (sizes[name] for name in "nhgwc")
        past = (c - n) // 2
        return Cost(
            operations=n * h * (past + n) * (4 * w + 5),
            moved_bytes=8 + 8 * n * h * w + 8 * n * g * w + (past + n) * g * cache.token_bytes(w),
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
            Argument(
                "scratch", "scratch", np.float32, ("g", lambda s: scratch_values(s["w"], s["c"]))
            ),
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
