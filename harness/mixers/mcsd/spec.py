"""MCSD: per channel a short normalised average (slope) and a long decaying sum (decay), gated.

State: two vectors of the model's width per layer and one normaliser per channel, whatever the
depth. `mcsd-paper` is the published form: block-diagonal projections, fixed decays, no output
projection; the other variants are what the paper leaves open, and its ablation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from harness.records import Call, Mixer, Shape, Tensor

SOURCE = "MCSD, arXiv 2406.12230 v1, eq. 1-21"
BOTH = ("slope", "decay")
NAMES = (("u", "v", "slope"), ("f", "e", "decay"))  # of a section: gate, memory, rates


def tensors(
    shape: Shape,
    kinds: Sequence[str] = BOTH,
    blocks: bool = False,
    concat: bool = False,
    output: bool = True,
) -> tuple[Tensor, ...]:
    """Projections u, v (first section) and f, e (second), rates of both, gain, output projection.

    kinds: of the sections, "slope" or "decay"; blocks: projections stay within a channel;
    concat: the output projection reads both sections rather than their sum
    """
    width, channels = shape.width, shape.channels
    names = NAMES[: len(kinds)]
    inputs, parts = (width // channels, channels) if blocks else (width, 1)
    found = [Tensor(n, (width, inputs), parts=parts) for *pair, _ in names for n in pair]
    # rates between 0 and 1: exp(-beta) of a slope, alpha of a decay
    found += [Tensor(rates, (channels,), packed=False) for *_, rates in names]
    if "decay" in kinds:  # of the channel norm
        found.append(Tensor("gain", (list(kinds).count("decay") * width,), packed=False))
    if output:
        found.append(Tensor("o", (width, 2 * width if concat else width)))
    return tuple(found)


def state_values(shape: Shape, depth: int, scans: int = 1) -> int:
    return scans * (2 * shape.width + shape.channels)


def calls(
    shape: Shape, tokens: int, depth: int, scans: int = 1, **options: Any
) -> tuple[Call, ...]:
    """scans: calls of the kernel, which mixes both sections in one where it can."""
    width = shape.width
    matrices = [t for t in tensors(shape, **options) if t.packed]
    mixing = Call(
        kernel="mcsd",
        sizes={"n": tokens, "c": shape.channels, "w": width // shape.channels},
        count=scans,
        operations=27 * tokens * width,
        state_bytes=2 * 4 * state_values(shape, depth),
        activation_bytes=4 * 5 * tokens * width,
    )
    before, after = [m for m in matrices if m.name != "o"], [m for m in matrices if m.name == "o"]
    return (
        *(Call.of_matrix(t, tokens, t.parts) for t in before),
        mixing,
        *(Call.of_matrix(t, tokens) for t in after),
    )


def kept(shape: Shape, b: int, n: int, vectors: int = 0, matrices: int = 0) -> int:
    """What PyTorch's own steps keep of the forms that no kernel trains.

    vectors: of a token; matrices: of a channel whose rates are learned, see reference.py
    """
    side = n if n <= 64 else 32  # at once, or chunk by chunk
    return vectors * b * n * shape.width + matrices * shape.channels * side * side


def _variant(
    suffix: str,
    source: str,
    *,
    forward: str = "forward",
    learned: bool = False,
    vectors: int = 0,
    matrices: int = 0,
    **options: Any,
) -> Mixer:
    """options: of `tensors`; vectors, matrices: of `kept`.

    A forward by sections scans once for each.
    """
    kinds = options.get("kinds", BOTH)
    scans = len(kinds) if forward not in ("forward", "forward_paper") else 1
    return Mixer(
        name=f"mcsd{suffix}",
        folder="mcsd",
        tensors=partial(tensors, **options),
        state_values=partial(state_values, scans=scans),
        calls=partial(calls, scans=scans, **options),
        source=f"{SOURCE}; {source}",
        forward=lambda shape: forward,
        kept=partial(kept, vectors=vectors, matrices=matrices),
        options={**options, "learned": learned},
    )


SPEC = _variant("", "full and output projections, learned decays", learned=True)
VARIANTS = (
    _variant("-fixed", "full and output projections, the paper's decays"),
    _variant(
        "-paper", "as published: projections by channel, its decays, no output projection",
        forward="forward_paper", blocks=True, output=False,
    ),
    _variant(
        "-blocks", "projections by channel, an output projection, learned decays",
        forward="forward_blocks", blocks=True, learned=True,
    ),
    _variant(
        "-concat", "sections concatenated (eq. 13), learned decays",
        forward="forward_concat", concat=True, learned=True, vectors=10, matrices=9,
    ),
    _variant("-no-decay", "ablation, fig. 9", forward="forward_slope", kinds=("slope",), vectors=3),
    _variant("-no-slope", "ablation, fig. 9", forward="forward_decay", kinds=("decay",), vectors=3),
    _variant(
        "-double-slope", "ablation, fig. 9",
        forward="forward_slope_slope", kinds=("slope", "slope"), vectors=5,
    ),
    _variant(
        "-double-decay", "ablation, fig. 9",
        forward="forward_decay_decay", kinds=("decay", "decay"), vectors=5,
    ),
)  # fmt: skip
