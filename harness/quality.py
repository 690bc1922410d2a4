"""Checkpoint + corpus -> Quality: the packed weights scored through the engine that is timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness import plugins
from harness.engines.numba import session as engine
from harness.errors import BadCheckpoint, BadInput
from harness.records import Array, Checkpoint, Corpus, Quality, Splits

BLOCKS = 256  # windows scored, spread evenly over the held-out text
OTHER_BYTES = "trained on other bytes than scored"


def score(
    checkpoint: Checkpoint,
    *,
    threads: int = 1,
    blocks: int = BLOCKS,
    corpus: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quality:
    """Bits per byte, or accuracy, on the test split (the validation split where there is none).

    State starts afresh in each window of the trained context. A corpus whose bytes differ from
    those the checkpoint was trained on is scored, and flagged. Raises BadInput for random
    weights, BadCheckpoint when the engine's logits are not finite.
    """
    name = corpus or checkpoint.recipe.corpus
    spec = plugins.pick(plugins.corpora(), name, "corpus")
    trained_on = str(checkpoint.provenance.get("corpus_hash", ""))
    if not trained_on:
        raise BadInput(f"{checkpoint.recipe.name} has random weights: speed only, no quality")
    splits, begin = spec.load(), time.perf_counter()
    room = spec.example or checkpoint.shape.context
    held_out = splits.test if splits.test.size > room else splits.validation
    windows = _windows(spec, held_out, room, blocks)
    results = []
    with engine.open_session(checkpoint, room=room, threads=threads) as session:
        for done, (inputs, targets) in enumerate(windows):
            engine.reset(session)
            logits = engine.feed(session, inputs, every=True)
            if not np.isfinite(logits).all():
                raise BadCheckpoint(f"{checkpoint.recipe.name} gives logits that are not finite")
            results.append(_measure(spec, logits, targets))
            progress(done + 1, len(windows))
    found = _summary(spec, splits, results, trained_on)
    return replace(found, seconds=round(time.perf_counter() - begin, 3))


def _windows(spec: Corpus, held_out: Array, room: int, blocks: int) -> list[tuple[Array, Array]]:
    """Inputs and next tokens of up to `blocks` windows."""
    tokens = held_out.astype(np.int64)
    if spec.example:
        examples = tokens.reshape(-1, spec.example)[:blocks]
        return [(example, np.append(example[1:], 0)) for example in examples]
    count = (tokens.size - 1) // room
    if count < 2:
        raise BadInput(f"the held-out text of {spec.name} has no two windows of {room} bytes")
    chosen = np.unique(np.linspace(0, count - 1, min(count, blocks)).astype(int))
    starts = chosen * room
    return [(tokens[s : s + room], tokens[s + 1 : s + room + 1]) for s in starts]


def _measure(spec: Corpus, logits: Array, targets: Array) -> float:
    """Mean bits per token of one window, or its share of right answers."""
    if spec.example:
        asked = list(spec.scored)
        return float((logits[asked].argmax(-1) == targets[asked]).mean())
    values = logits.astype(np.float64)
    top = values.max(-1, keepdims=True)
    log_sum = np.log(np.exp(values - top).sum(-1)) + top[:, 0]
    return float((log_sum - values[np.arange(targets.size), targets]).mean() / math.log(2))


def _summary(spec: Corpus, splits: Splits, results: list[float], trained_on: str) -> Quality:
    values = np.array(results)
    same = trained_on == splits.hash
    return Quality(
        metric=spec.metric,
        value=float(values.mean()),
        standard_error=float(values.std(ddof=1) / math.sqrt(values.size)),
        blocks=values.size,
        corpus=spec.name,
        corpus_hash=splits.hash,
        trained_on=trained_on,
        flags=() if same else (OTHER_BYTES,),
    )
