"""Causal attention of the Llama shape: rotary positions, grouped queries, a key-value cache."""

from __future__ import annotations

from harness.records import Call, Mixer, Shape, Tensor


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    return (
        Tensor("q", (queries, shape.width)),
        Tensor("k", (keys, shape.width)),
        Tensor("v", (keys, shape.width)),
        Tensor("o", (shape.width, queries)),
    )


def state_values(shape: Shape, depth: int) -> int:
    return 2 * depth * shape.kv_heads * shape.head_width


def calls(shape: Shape, tokens: int, depth: int) -> tuple[Call, ...]:
    """The attention call reads the cache once per query token; its depth grows through a prompt."""
    heads, kv_heads, width = shape.heads, shape.kv_heads, shape.head_width
    mean_depth = depth + (tokens + 1) // 2
    attend = {"n": tokens, "t": mean_depth, "h": heads, "g": kv_heads, "w": width}
    return (
        *(Call.of_matrix(t, tokens) for t in tensors(shape)[:3]),
        Call(
            kernel="rope",
            sizes={"n": tokens, "h": heads + kv_heads, "w": width},
            count=1,
            operations=3 * tokens * (heads + kv_heads) * width,
            activation_bytes=8 * tokens * (heads + kv_heads) * width,
        ),
        Call(
            kernel="attention",
            sizes=attend,
            count=1,
            operations=tokens * heads * mean_depth * (4 * width + 5),
            state_bytes=4 * state_values(shape, depth + tokens),
            activation_bytes=8 * tokens * heads * width,
        ),
        Call.of_matrix(tensors(shape)[3], tokens),
    )


SPEC = Mixer(
    name="attention",
    folder="attention",
    tensors=tensors,
    state_values=state_values,
    calls=calls,
    source="Vaswani et al. 2017; Su et al. 2021 (rotary); Ainslie et al. 2023 (grouped queries)",
)
