"""Checkpoint + held-out text -> how much of its ffns the engine ran for each token, and its loss.

Sizes: n scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness import losses
from harness.engines.numba import session as engine
from harness.errors import BadInput
from harness.records import Array, Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Of tokens in the order of the text, each being what the next one is predicted from.

    share (n,): of groups of neurons that ran, mean over layers; nats (n,): what the prediction
    cost, float64; own (n,): what the token itself cost when it was predicted, nan where nothing
    came before it in its window; places (n,): in the text
    """

    share: Array
    nats: Array
    own: Array
    places: Array


def of(
    checkpoint: Checkpoint,
    text: Array,
    *,
    window: int = 0,
    most: int | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Activity:
    """What ran and what it cost in windows side by side, read as `losses.of` reads them.

    Raises BadInput for an ffn without groups and a text too short, BadCheckpoint when logits are
    not finite.
    """
    if checkpoint.shape.ffn == "dense":
        raise BadInput(f"{checkpoint.recipe.name} is dense: every token runs all of its ffns")
    tokens, length = text.astype(np.int64), window or checkpoint.shape.context
    stretches = losses.spread(losses.plan(checkpoint, tokens.size, "windows", length), most)
    shares, nats = [], []
    with engine.open_session(checkpoint, room=length, threads=threads, chunk=length) as session:
        rows = session.arenas.logits.shape[0]  # more than these would be several calls
        for done, stretch in enumerate(stretches):
            engine.reset(session)
            for at in range(stretch.first, stretch.last, rows):
                end = min(at + rows, stretch.last)
                logits = engine.feed(session, tokens[at:end], every=True)
                losses.finite(logits, session.name)
                shares.append(engine.ran(session, end - at))
                nats.append(losses.nats_of(logits, tokens[at + 1 : end + 1]))
            progress(done + 1, len(stretches))
    costs = np.concatenate(nats)
    own = np.roll(costs, 1)
    own[np.cumsum([0] + [s.last - s.first for s in stretches[:-1]])] = np.nan
    return Activity(
        share=np.concatenate(shares),
        nats=costs,
        own=own,
        places=np.concatenate([np.arange(s.first, s.last) for s in stretches]),
    )


def correlation(found: Activity) -> float:
    """Pearson's, of the share that ran for a token and the nats of predicting the next one.

    nan where every token ran as much.
    """
    return _pearson(found.share, found.nats)


def surprise(found: Activity) -> float:
    """The same with the nats of the token itself: whether what was unexpected makes more run."""
    known = np.isfinite(found.own)
    return _pearson(found.share[known], found.own[known])


def _pearson(first: Array, second: Array) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(first, second)[0, 1])
