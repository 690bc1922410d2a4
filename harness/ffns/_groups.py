"""What ffns of groups have in common: their matrices, and the calls of what runs.

A group is `shape.group` neighbouring neurons. All its weights lie together in memory, because
jumps cost more than neurons.
"""

from __future__ import annotations

from harness.errors import BadInput
from harness.records import Call, Shape, Tensor

LANES = 16  # neurons that a product makes at once, in any format


def count(shape: Shape) -> int:
    """Groups of a layer. Raises BadInput where the ffn does not split into them."""
    if shape.hidden % shape.group or shape.group % LANES:
        raise BadInput(
            f"an ffn of {shape.hidden} neurons does not split into groups of {shape.group}; "
            f"a group is a multiple of {LANES} neurons that divides the ffn"
        )
    return shape.hidden // shape.group


def matrices(shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    groups = count(shape)
    return (
        Tensor("gate", (shape.hidden, shape.width), parts=groups, record="group"),
        Tensor("up", (shape.hidden, shape.width), parts=groups, record="group"),
        Tensor("down", (shape.width, shape.hidden), parts=groups, axis=1, record="group"),
    )


def calls(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    """Products and activation of a mean fraction `active` of the groups."""
    gate, up, down = matrices(shape)
    share = read(tokens, active)
    return (
        *(Call.of_matrix(t, tokens, share=share, work=active) for t in (gate, up)),
        activation(shape, tokens, active),
        Call.of_matrix(down, tokens, share=share, work=active),
    )


def read(tokens: int, active: float) -> float:
    """The share of groups that is read for so many tokens.

    A group is read once for all tokens that chose it; as if each token chose for itself, which
    reads most: tokens that are alike choose alike.
    """
    return 1.0 - (1.0 - active) ** tokens


def activation(shape: Shape, tokens: int, active: float) -> Call:
    hidden = round(active * shape.hidden)
    return Call(
        kernel="glu",
        sizes={"n": tokens, "m": max(1, hidden)},
        count=1,
        operations=8 * tokens * hidden,
        activation_bytes=12 * tokens * hidden,
    )


def fraction(shape: Shape) -> float:
    """The share of groups that run where their number is fixed."""
    groups = count(shape)
    return min(shape.chosen, groups) / groups


def behind_gates(shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices where all gates are made before groups are chosen by them."""
    _, up, down = matrices(shape)
    return Tensor("gate", (shape.hidden, shape.width)), up, down


def calls_behind_gates(shape: Shape, tokens: int, active: float) -> tuple[Call, ...]:
    """All gates, and the rest of a mean fraction `active` of the groups."""
    gate, up, down = behind_gates(shape)
    share = read(tokens, active)
    return (
        Call.of_matrix(gate, tokens),
        Call.of_matrix(up, tokens, share=share, work=active),
        activation(shape, tokens, 1.0),
        Call.of_matrix(down, tokens, share=share, work=active),
    )


def kept(shape: Shape, b: int, n: int) -> int:
    """Training computes every group and scales some by what chose them: both are kept."""
    return b * n * (shape.hidden + 2 * count(shape))
