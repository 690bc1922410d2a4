"""A protocol's name + checkpoint -> how the packed weights score by it, through the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from harness import plugins, quality
from harness.records import Checkpoint, Quality

EVERY = 1_000_000  # blocks: the whole held-out text
Curve: TypeAlias = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """figures: further numbers; curves: (x, value, standard error), both by name."""

    quality: Quality
    tokens: int
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)


def windows(checkpoint: Checkpoint) -> Scored:
    """All of the held-out text in windows of the trained context, or all examples."""
    found = quality.score(checkpoint, blocks=EVERY)
    return Scored(quality=found, tokens=found.blocks * checkpoint.shape.context)


PROTOCOLS: Mapping[str, Callable[[Checkpoint], Scored]] = {"windows": windows}


def losses(found: Quality) -> dict[str, float]:
    """A score under the names that claims may use."""
    if found.metric != "bits per byte":
        return {found.metric: found.value}
    return {"bits": found.value, "nats": found.value * math.log(2)}


def generated(corpus: str) -> bool:
    """Whether its tokens are made as they are needed, so that they are no characters of a text."""
    return plugins.pick(plugins.corpora(), corpus, "corpus").sample is not None
