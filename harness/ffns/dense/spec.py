"""Gated feed-forward layer: down(silu(gate x) * up x)."""

from __future__ import annotations

from harness.records import Call, Ffn, Shape, Tensor


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    return (
        Tensor("gate", (shape.hidden, shape.width)),
        Tensor("up", (shape.hidden, shape.width)),
        Tensor("down", (shape.width, shape.hidden)),
    )


def calls(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    gate, up, down = tensors(shape)
    glu = Call(
        kernel="glu",
        sizes={"n": tokens, "m": shape.hidden},
        count=1,
        operations=8 * tokens * shape.hidden,
        activation_bytes=12 * tokens * shape.hidden,
    )
    return (
        Call.of_matrix(gate, tokens),
        Call.of_matrix(up, tokens),
        glu,
        Call.of_matrix(down, tokens),
    )


SPEC = Ffn(name="dense", tensors=tensors, calls=calls, source="Shazeer 2020, SwiGLU")
