"""Causal attention of the Llama shape: rotary positions, grouped queries, a key-value cache.

`attention-alibi` knows positions by a bias that falls with distance instead of rotations.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from harness.records import Array, Call, Mixer, Shape, Tensor


def tensors(shape: Shape, alibi: bool = False) -> tuple[Tensor, ...]:
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    return (
        Tensor("q", (queries, shape.width)),
        Tensor("k", (keys, shape.width)),
        Tensor("v", (keys, shape.width)),
        Tensor("o", (shape.width, queries)),
        *((Tensor("slopes", (shape.heads,), packed=False),) if alibi else ()),
    )


def speeds(shape: Shape) -> Array:
    """How far each pair of a head's features turns a token [rad], float64 (head_width/2,).

    Su et al. 2021, section 3.2.2: base^(-2i/w); stretched as RopeScaling says.
    """
    w = shape.head_width
    plain: Array = shape.rope_base ** (-2.0 * np.arange(w // 2) / w)
    scaling = shape.rope_scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    turns = scaling.original_context * plain / (2 * math.pi)
    kept = (turns - scaling.low_turns) / (scaling.high_turns - scaling.low_turns)
    kept = np.clip(kept, 0.0, 1.0)
    stretched: Array = kept * plain + (1 - kept) * plain / scaling.factor
    return stretched


def slopes(heads: int) -> Array:
    """How fast the bias of each head falls with distance, float64 (heads,).

    Press et al. 2021, section 3: 2^(-8i/heads); where heads are no power of two, those of the next
    smaller one and then every other of the next larger one, as in their code.
    """
    whole = 2 ** int(math.log2(heads))
    found: Array = 2.0 ** (-8.0 * np.arange(1, whole + 1) / whole)
    between = 2.0 ** (-4.0 * np.arange(1, 2 * whole, 2) / whole)
    return np.concatenate([found, between])[:heads]


RECORD = 16  # tokens a cache grows by, as kernels.caches


def token_bytes(shape: Shape) -> int:
    """What the cache keeps of one token and key-value head; see kernels.caches."""
    padded = -(-shape.head_width // 16) * 16
    if shape.cache == "int8":
        return 8 + -(-shape.head_width // 32) * 32 + padded
    return padded * {"f32": 8, "f16": 4}[shape.cache]


def state_values(shape: Shape, depth: int) -> int:
    return -(-depth // RECORD) * RECORD * shape.kv_heads * token_bytes(shape) // 4


def calls(shape: Shape, tokens: int, depth: int, alibi: bool = False) -> tuple[Call, ...]:
    """The attention call reads the cache once per query token; its depth grows through a prompt."""
    heads, kv_heads, width = shape.heads, shape.kv_heads, shape.head_width
    mean_depth = depth + (tokens + 1) // 2
    attend = {"n": tokens, "t": mean_depth, "h": heads, "g": kv_heads, "w": width}
    rope = Call(
        kernel="rope",
        sizes={"n": tokens, "h": heads + kv_heads, "w": width},
        count=1,
        operations=3 * tokens * (heads + kv_heads) * width,
        activation_bytes=8 * tokens * (heads + kv_heads) * width,
    )
    a_score = 4 * width + (7 if alibi else 5)
    return (
        *(Call.of_matrix(t, tokens) for t in tensors(shape)[:3]),
        *(() if alibi else (rope,)),
        Call(
            kernel="attention" if shape.cache == "f32" else f"attention_{shape.cache}",
            sizes=attend,
            count=1,
            operations=tokens * heads * mean_depth * a_score,
            state_bytes=(depth + tokens) * kv_heads * token_bytes(shape),
            activation_bytes=8 * tokens * heads * width,
        ),
        Call.of_matrix(tensors(shape)[3], tokens),
    )


def kept(shape: Shape, b: int, n: int, alibi: bool = False) -> int:
    """Sums of chances, and the table of angles, or the mask."""
    table = shape.heads * n * n if alibi else n * shape.head_width
    return b * n * shape.heads + table


SPEC = Mixer(
    name="attention",
    folder="attention",
    tensors=tensors,
    state_values=state_values,
    calls=calls,
    forward=lambda shape: f"forward_{shape.cache}",
    kept=kept,
    source="Vaswani et al. 2017; Su et al. 2021 (rotary); Ainslie et al. 2023 (grouped queries)",
)
VARIANTS = (
    Mixer(
        name="attention-alibi",
        folder="attention",
        tensors=partial(tensors, alibi=True),
        state_values=state_values,
        calls=partial(calls, alibi=True),
        forward=lambda shape: f"forward_alibi_{shape.cache}",
        begin="begin_alibi",
        kept=partial(kept, alibi=True),
        options={"alibi": True},
        source="Vaswani et al. 2017; Press et al. 2021 (linear biases); Ainslie et al. 2023",
    ),
)
