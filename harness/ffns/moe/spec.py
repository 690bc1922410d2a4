"""Gated feed-forward layer as a mixture of experts: a router picks and weighs groups of neurons.

Each token runs the `shape.chosen` groups its router scores highest, weighted by a softmax over
their scores. A group is an expert.
"""

from __future__ import annotations

from harness.ffns import _groups
from harness.records import Call, Ffn, Shape, Tensor


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    router = Tensor("router", (_groups.count(shape), shape.width), packed=False)
    return (*_groups.matrices(shape), router)


def calls(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    groups = _groups.count(shape)
    route = Call(
        kernel="router",
        sizes={"n": tokens, "k": shape.width, "g": groups, "c": min(shape.chosen, groups)},
        count=1,
        operations=2 * tokens * groups * shape.width,
        weight_bytes=4 * groups * shape.width,
    )
    return (route, *_groups.calls(shape, tokens, _groups.fraction(shape)))


SPEC = Ffn(
    name="moe",
    tensors=tensors,
    calls=calls,
    kept=_groups.kept,
    source="top-k of a linear router as Jiang et al. 2024, Mixtral; balance of Fedus et al. 2021",
)
