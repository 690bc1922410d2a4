"""A protocol's name + checkpoint -> how the packed weights score by it, through the engine.

windows: of the trained context, state fresh in each; or all examples
sliding: windows a quarter apart, so that a token has three quarters of one before it
carried: the whole text as one stream; its drift is what it loses to `windows` from begin to end
positions: windows of 16 times the trained context, and what tokens cost by their place in them
activity: windows, and how much of the ffns ran for tokens that cost more or less
difficulty: all examples, and accuracy by what makes others harder: pairs, distance, length

All of the held-out data is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from harness import activity, examples, losses, plugins, positions, quality
from harness.records import Array, Checkpoint, Quality

FURTHER = 16  # times the trained context
TENTHS = 10
PASSAGE = 432  # tokens of a text that are kept one by one
Curve: TypeAlias = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """figures: further numbers; curves: (x, value, standard error), both by name."""

    quality: Quality
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)


def windows(checkpoint: Checkpoint) -> Scored:
    return Scored(quality=quality.score(checkpoint, blocks=None))


def sliding(checkpoint: Checkpoint) -> Scored:
    return Scored(quality=quality.score(checkpoint, blocks=None, protocol="sliding"))


def carried(checkpoint: Checkpoint) -> Scored:
    """The drift is taken on the same tokens read in windows, so that it is not the text's own."""
    found = quality.score(checkpoint, blocks=None, protocol="carried")
    window = checkpoint.shape.context
    text = _held_out(checkpoint)
    text = text[: (text.size - 1) // window * window + 1]  # what windows score, too
    here, there = (losses.of(checkpoint, text, p) for p in ("carried", "windows"))
    course = positions.drift(here, there)
    figures = {"drift": course.slope, "drift_low": course.low, "drift_high": course.high}
    return Scored(quality=found, figures=figures)


def by_position(checkpoint: Checkpoint) -> Scored:
    """The score is that of the long windows."""
    window = FURTHER * checkpoint.shape.context
    found = quality.score(checkpoint, blocks=None, context=window)
    edges = [0, *(2**i for i in range(int(math.log2(window)))), window]
    course = positions.course(losses.of(checkpoint, _held_out(checkpoint), window=window), edges)
    places = zip(course.last, course.nats, course.standard_error, strict=True)
    curve = tuple((float(x), float(y), float(error)) for x, y, error in places)
    return Scored(quality=found, curves={"position": curve})


def by_activity(checkpoint: Checkpoint) -> Scored:
    """The curve is over tenths of the tokens by their loss; the passage is the text's beginning,
    (byte, share that ran, nats) of each token."""
    found = quality.score(checkpoint, blocks=None)
    text = _held_out(checkpoint)
    seen = activity.of(checkpoint, text)
    order = np.array_split(np.argsort(seen.nats, kind="stable"), TENTHS)
    curve = tuple(
        (
            float(seen.nats[part].mean()),
            float(seen.share[part].mean()),
            float(seen.share[part].std(ddof=1) / math.sqrt(part.size)),
        )
        for part in order
    )
    figures = {
        "active": float(seen.share.mean()),
        "correlation": activity.correlation(seen),
        "surprise": activity.surprise(seen),
    }
    letters = _bytes(checkpoint.recipe.corpus, text[seen.places[:PASSAGE]])
    passage = zip(letters, seen.share[:PASSAGE], seen.nats[:PASSAGE], strict=True)
    return Scored(
        quality=found,
        figures={name: value for name, value in figures.items() if math.isfinite(value)},
        curves={
            "difficulty": curve,
            "passage": tuple((float(a), float(b), float(c)) for a, b, c in passage),
        },
    )


def by_difficulty(checkpoint: Checkpoint) -> Scored:
    found = quality.score(checkpoint, blocks=None)
    curves = {
        axis: tuple((float(at), s.value, s.standard_error) for at, s in steps.items())
        for axis, steps in examples.series(checkpoint).items()
    }
    return Scored(quality=found, curves=curves)


PROTOCOLS: Mapping[str, Callable[[Checkpoint], Scored]] = {
    "windows": windows,
    "sliding": sliding,
    "carried": carried,
    "positions": by_position,
    "activity": by_activity,
    "difficulty": by_difficulty,
}


def _held_out(checkpoint: Checkpoint) -> Array:
    splits = plugins.corpora()[checkpoint.recipe.corpus].load()
    return splits.test if splits.test.size else splits.validation


def _bytes(corpus: str, tokens: Array) -> Array:
    """What tokens of a text stand for."""
    symbols = plugins.corpora()[corpus].symbols
    return tokens if symbols is None else np.frombuffer(symbols(), np.uint8)[tokens]


def figures(found: Quality) -> dict[str, float]:
    """A score under the names that claims may use."""
    if not found.metric.startswith("bits"):
        return {found.metric: found.value}
    return {"bits": found.value, "nats": found.value * math.log(2)}


def generated(corpus: str) -> bool:
    """Whether its tokens are made as they are needed, so that they are no characters of a text."""
    return plugins.pick(plugins.corpora(), corpus, "corpus").sample is not None
