"""MCSD: per channel a short normalised average (slope) and a long decaying sum (decay), gated.

State: two vectors of the model's width per layer and one normaliser per channel, whatever the
depth. `mcsd-paper` is the published form: block-diagonal projections, fixed decays, no output
projection.
"""

from __future__ import annotations

from functools import partial

from harness.records import Call, Mixer, Shape, Tensor

SOURCE = "MCSD, arXiv 2406.12230 v1, eq. 1-21"


def tensors(shape: Shape, paper: bool = False) -> tuple[Tensor, ...]:
    """u, v (slope) and f, e (decay) projections, a^1 per channel, gain of the channel norm."""
    width, channels = shape.width, shape.channels
    inputs = width // channels if paper else width
    parts = channels if paper else 1
    projections = tuple(Tensor(name, (width, inputs), parts=parts) for name in "uvfe")
    constants = (
        Tensor("slope", (channels,), packed=False),  # a = exp(-beta), 0 < a < 1
        Tensor("decay", (channels,), packed=False),  # alpha, 0 < alpha < 1
        Tensor("gain", (width,), packed=False),
    )
    return projections + constants + (() if paper else (Tensor("o", (width, width)),))


def state_values(shape: Shape, depth: int) -> int:
    return 2 * shape.width + shape.channels


def calls(shape: Shape, tokens: int, depth: int, paper: bool = False) -> tuple[Call, ...]:
    width = shape.width
    matrices = [t for t in tensors(shape, paper) if t.packed]
    blocks = shape.channels if paper else 1
    scan = Call(
        kernel="mcsd",
        sizes={"n": tokens, "c": shape.channels, "w": width // shape.channels},
        count=1,
        operations=27 * tokens * width,
        state_bytes=2 * 4 * state_values(shape, depth),
        activation_bytes=4 * 5 * tokens * width,
    )
    return (
        *(Call.of_matrix(t, tokens, blocks) for t in matrices[:4]),
        scan,
        *(Call.of_matrix(t, tokens) for t in matrices[4:]),
    )


SPEC = Mixer(
    name="mcsd",
    folder="mcsd",
    tensors=tensors,
    state_values=state_values,
    calls=calls,
    source=SOURCE + "; full and output projections, learned decays",
)
VARIANTS = (
    Mixer(
        name="mcsd-paper",
        folder="mcsd",
        tensors=partial(tensors, paper=True),
        state_values=state_values,
        calls=partial(calls, paper=True),
        source=SOURCE,
        forward=lambda shape: "forward_paper",
        options={"paper": True},
    ),
)
