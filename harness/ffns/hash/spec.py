"""Gated feed-forward layer whose tokens each run groups of neurons that a hash of them picks.

As many groups for every token, the same ones wherever it stands; nothing is learned or weighed.
"""

from __future__ import annotations

from harness.ffns import _groups
from harness.records import Call, Ffn, Shape, Tensor


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    return _groups.matrices(shape)


def calls(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    return _groups.calls(shape, tokens, _groups.fraction(shape))


SPEC = Ffn(
    name="hash",
    tensors=tensors,
    calls=calls,
    source="a random choice fixed by token: Roller et al. 2021, Hash layers",
)
