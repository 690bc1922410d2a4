"""Checkpoint + corpus -> Quality: the packed weights scored through the engine that is timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness import plugins, reading
from harness.engines.numba import session as engine
from harness.errors import BadCheckpoint, BadInput
from harness.reading import Window
from harness.records import Array, Checkpoint, Corpus, Quality, Splits

BLOCKS = 256  # windows scored, spread evenly over the held-out text
OTHER_BYTES = "trained on other bytes than scored"
PUBLIC = "public weights: may have been trained on this text"
ROWS = 64  # logits measured at once, so that a large vocabulary takes no gigabytes


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
    origin = checkpoint.recipe.origin
    if not trained_on and origin is None:
        raise BadInput(f"{checkpoint.recipe.name} has random weights: speed only, no quality")
    splits, begin = spec.load(), time.perf_counter()
    room = spec.example or checkpoint.shape.context
    if origin is not None:
        room = min(room, reading.WINDOW)
    held_out = splits.test if splits.test.size > room else splits.validation
    if origin is not None:
        windows = reading.windows(checkpoint, origin, spec, held_out, blocks)
        room = max(window.inputs.size for window in windows)
    else:
        windows = _windows(spec, held_out, room, blocks)
    results = []
    with engine.open_session(checkpoint, room=room, threads=threads) as session:
        for done, window in enumerate(windows):
            engine.reset(session)
            logits = engine.feed(session, window.inputs, every=True)
            if not np.isfinite(logits).all():
                raise BadCheckpoint(f"{checkpoint.recipe.name} gives logits that are not finite")
            results.append(_measure(spec, logits, window))
            progress(done + 1, len(windows))
    sizes = [window.size for window in windows]
    found = _summary(spec, splits, results, sizes, trained_on)
    return replace(found, seconds=round(time.perf_counter() - begin, 3))


def _windows(spec: Corpus, held_out: Array, room: int, blocks: int) -> list[Window]:
    """Inputs and next tokens of up to `blocks` windows."""
    tokens = held_out.astype(np.int64)
    if spec.example:
        examples = tokens.reshape(-1, spec.example)[:blocks]
        return [Window(example, np.append(example[1:], 0), spec.example) for example in examples]
    count = (tokens.size - 1) // room
    if count < 2:
        raise BadInput(f"the held-out text of {spec.name} has no two windows of {room} bytes")
    chosen = np.unique(np.linspace(0, count - 1, min(count, blocks)).astype(int))
    starts = chosen * room
    return [Window(tokens[s : s + room], tokens[s + 1 : s + room + 1], room) for s in starts]


def _measure(spec: Corpus, logits: Array, window: Window) -> float:
    """Bits of one window for each of its bytes, or its share of right answers."""
    if spec.example:
        asked = list(spec.scored)
        return float((logits[asked].argmax(-1) == window.targets[asked]).mean())
    parts = [slice(i, i + ROWS) for i in range(0, window.targets.size, ROWS)]
    return sum(_nats(logits[part], window.targets[part]) for part in parts) / (
        math.log(2) * window.size
    )


def _nats(logits: Array, targets: Array) -> float:
    """What the targets cost, but for those that are given."""
    values = logits[targets != reading.GIVEN].astype(np.float64)
    wanted = targets[targets != reading.GIVEN]
    top = values.max(-1, keepdims=True)
    log_sum = np.log(np.exp(values - top).sum(-1)) + top[:, 0]
    return float((log_sum - values[np.arange(wanted.size), wanted]).sum())


def _summary(
    spec: Corpus, splits: Splits, results: list[float], sizes: list[int], trained_on: str
) -> Quality:
    """The whole text's value: of windows that differ in bytes, a ratio of two sums."""
    values, shares = np.array(results), np.array(sizes) / sum(sizes)
    value = float((shares * values).sum())
    spread = float(((shares * (values - value)) ** 2).sum())
    doubt = PUBLIC if not trained_on else OTHER_BYTES if trained_on != splits.hash else ""
    return Quality(
        metric=spec.metric,
        value=value,
        standard_error=math.sqrt(spread * values.size / (values.size - 1)),
        blocks=values.size,
        corpus=spec.name,
        corpus_hash=splits.hash,
        trained_on=trained_on,
        flags=(doubt,) if doubt else (),
    )
