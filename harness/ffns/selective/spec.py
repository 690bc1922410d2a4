"""Gated feed-forward layer that runs only the groups of neurons a small selector picks.

A low-rank selector scores groups of `shape.group` neurons from the layer's input; a group runs
when its score is above zero (hard choice, no weighting), so harder tokens may use more of them.
"""

from __future__ import annotations

from harness.ffns import _groups
from harness.records import Call, Ffn, Shape, Tensor


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    groups, rank = _groups.count(shape), shape.selector_rank
    return (
        *_groups.matrices(shape),
        Tensor("selector_in", (rank, shape.width), packed=False),
        Tensor("selector_out", (groups, rank), packed=False, transposed=True),
        Tensor("selector_bias", (groups,), packed=False),
    )


def calls(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    groups, rank = _groups.count(shape), shape.selector_rank
    choose = Call(
        kernel="selector",
        sizes={"n": tokens, "k": shape.width, "r": rank, "g": groups},
        count=1,
        operations=2 * tokens * rank * (shape.width + groups),
        weight_bytes=4 * (rank * shape.width + groups * rank + groups),
    )
    return (choose, *_groups.calls(shape, tokens, active))


def kept(shape: Shape, b: int, n: int) -> int:
    """Training computes every group and masks some: what was masked, and the choice."""
    groups = shape.hidden // shape.group
    return b * n * (shape.hidden + 2 * groups + shape.selector_rank)


SPEC = Ffn(
    name="selective",
    tensors=tensors,
    calls=calls,
    kept=kept,
    source="brain-like activation as published in outline by RockAI; selector and budget are ours",
)
