"""Gated feed-forward layer with a ReLU: down(relu(gate x) * up x), skipping what is exactly zero.

Every gate is made; a group of neurons whose gates are all shut reads nothing of `up` and `down`,
which lie together by group. A product makes sixteen neurons at once, so nothing finer is skipped.
"""

from __future__ import annotations

from harness.ffns import _groups
from harness.records import Call, Ffn, Shape, Tensor


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    return _groups.behind_gates(shape)


def calls(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    return _groups.calls_behind_gates(shape, tokens, active)


SPEC = Ffn(
    name="relu",
    tensors=tensors,
    calls=calls,
    source="Mirzadeh et al. 2023, ReLU strikes back; gated as Shazeer 2020, ReGLU",
)
