"""Gated feed-forward layer that runs only the groups of neurons a small selector picks.

A low-rank selector scores groups of `shape.group` neurons from the layer's input; a group runs
when its score is above zero (hard choice, no weighting), so harder tokens may use more of them.
All weights of a group lie together in memory, because jumps cost more than neurons.
"""

from __future__ import annotations

from harness.records import Call, Ffn, Shape, Tensor


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    groups = shape.hidden // shape.group
    return (
        Tensor("gate", (shape.hidden, shape.width), parts=groups, record="group"),
        Tensor("up", (shape.hidden, shape.width), parts=groups, record="group"),
        Tensor("down", (shape.width, shape.hidden), parts=groups, axis=1, record="group"),
        Tensor("selector_in", (shape.selector_rank, shape.width), packed=False),
        Tensor("selector_out", (groups, shape.selector_rank), packed=False, transposed=True),
        Tensor("selector_bias", (groups,), packed=False),
    )


def calls(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    gate, up, down, *selector = tensors(shape)
    rank, groups = shape.selector_rank, shape.hidden // shape.group
    choose = Call(
        kernel="selector",
        sizes={"n": tokens, "k": shape.width, "r": rank, "g": groups},
        count=1,
        operations=2 * tokens * rank * (shape.width + groups),
        weight_bytes=4 * sum(_size(t) for t in selector),
    )
    hidden = round(active * shape.hidden)
    # a group is read once for all tokens that chose it; as if each token chose for itself, which
    # reads most: tokens that are alike choose alike
    share = 1 - (1 - active) ** tokens
    glu = Call(
        kernel="glu",
        sizes={"n": tokens, "m": max(1, hidden)},
        count=1,
        operations=8 * tokens * hidden,
        activation_bytes=12 * tokens * hidden,
    )
    return (
        choose,
        *(Call.of_matrix(t, tokens, share=share, work=active) for t in (gate, up)),
        glu,
        Call.of_matrix(down, tokens, share=share, work=active),
    )


def _size(tensor: Tensor) -> int:
    total = 1
    for extent in tensor.shape:
        total *= extent
    return total


SPEC = Ffn(
    name="selective",
    tensors=tensors,
    calls=calls,
    source="brain-like activation as published in outline by RockAI; selector and budget are ours",
)
