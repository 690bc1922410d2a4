"""Gated feed-forward layer that skips groups of neurons whose gates are nearly shut.

down(silu(gate x) * up x), where a group runs if one of its activated gates is further from zero
than the layer's threshold. At a threshold below zero, as it is trained, it is the dense ffn; the
transform `threshold25` sets thresholds by training text, and `shape.chosen` to the groups that run
in the mean.
"""

from __future__ import annotations

from harness.ffns import _groups
from harness.records import Call, Ffn, Shape, Tensor


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    return (*_groups.behind_gates(shape), Tensor("threshold", (1,), packed=False))


def calls(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    return _groups.calls_behind_gates(shape, tokens, _groups.fraction(shape))


SPEC = Ffn(
    name="threshold",
    tensors=tensors,
    calls=calls,
    kept=_groups.kept,
    source="Lee et al. 2024, CATS, by groups of neurons",
)
