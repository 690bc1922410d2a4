"""Checkpoint + examples with questions -> what its answers are worth, by the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness import losses, plugins
from harness.engines.numba import session as engine
from harness.errors import BadInput
from harness.records import Array, Checkpoint, Examples


@dataclass(frozen=True, slots=True)
class Share:
    """Of right answers, with its standard error over examples."""

    value: float
    standard_error: float


def right(
    checkpoint: Checkpoint,
    tokens: Array,
    scored: Sequence[int],
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Array:
    """The share of right answers of each example (count,), float64.

    tokens (count,n); scored: positions whose next token is asked. Raises BadCheckpoint when logits
    are not finite.
    """
    found = _each(checkpoint, tokens, scored, threads, progress)
    return np.array([(logits.argmax(-1) == wanted).mean() for logits, wanted in found])


def bits(
    checkpoint: Checkpoint,
    tokens: Array,
    scored: Sequence[int],
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Array:
    """What an answer of each example costs (count,), float64, in the same way."""
    found = _each(checkpoint, tokens, scored, threads, progress)
    return np.array([losses.nats_of(*pair).mean() for pair in found]) / math.log(2)


def _each(
    checkpoint: Checkpoint,
    tokens: Array,
    scored: Sequence[int],
    threads: int,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Array, Array]]:
    """Logits (asked,vocabulary) and right answers (asked,) of one example after the other."""
    asked = list(scored)
    answers = tokens[:, [position + 1 for position in asked]]
    with engine.open_session(checkpoint, room=tokens.shape[1], threads=threads) as session:
        for done, (example, wanted) in enumerate(zip(tokens, answers, strict=True)):
            engine.reset(session)
            logits = losses.finite(engine.feed(session, example, every=True), session.name)
            yield logits[asked], wanted
            progress(done + 1, len(tokens))


def series(checkpoint: Checkpoint, *, threads: int = 1) -> dict[str, dict[int, Share]]:
    """Accuracy by what makes its corpus harder: {"pairs": {2: ..., 4: ...}, "distance": ...}.

    Raises BadInput where the corpus has no such examples.
    """
    corpus = plugins.pick(plugins.corpora(), checkpoint.recipe.corpus, "corpus")
    if corpus.series is None:
        raise BadInput(f"{corpus.name} is not told by difficulty; recall, recall-far, copy are")
    return {
        axis: {at: _share(checkpoint, examples, threads) for at, examples in steps.items()}
        for axis, steps in corpus.series().items()
    }


def _share(checkpoint: Checkpoint, examples: Examples, threads: int) -> Share:
    shares = right(checkpoint, examples.tokens, examples.scored, threads=threads)
    return Share(float(shares.mean()), float(shares.std(ddof=1) / len(shares) ** 0.5))
