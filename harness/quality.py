"""Checkpoint + corpus -> Quality: the packed weights scored through the engine that is timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness import examples, losses, plugins, reading
from harness.engines.numba import session as engine
from harness.errors import BadInput
from harness.losses import Protocol
from harness.records import Array, Checkpoint, Corpus, Origin, Quality, Splits

BLOCKS = 256  # windows scored, spread evenly over the held-out text; parts a whole one is cut into
OTHER_BYTES = "trained on other bytes than scored"
PUBLIC = "public weights: may have been trained on this text"
BEYOND = "beyond trained context"


def score(
    checkpoint: Checkpoint,
    *,
    threads: int = 1,
    blocks: int | None = BLOCKS,
    corpus: str | None = None,
    protocol: Protocol = "windows",
    context: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quality:
    """The corpus's metric on its test split (on the validation split where there is none).

    blocks: windows that are scored; None scores the whole text. protocol: see harness.losses.
    context: tokens of a window, those of the trained context by default. A corpus whose bytes
    differ from those the checkpoint was trained on is scored, and flagged. Raises BadInput for
    random weights and what a protocol cannot do, BadCheckpoint when the engine's logits are not
    finite.
    """
    recipe = checkpoint.recipe
    spec = plugins.pick(plugins.corpora(), corpus or recipe.corpus, "corpus")
    trained_on = str(checkpoint.provenance.get("corpus_hash", ""))
    if not trained_on and recipe.origin is None:
        raise BadInput(f"{recipe.name} has random weights: speed only, no quality")
    splits, begin = spec.load(), time.perf_counter()
    if (spec.example or recipe.origin) and (protocol != "windows" or context):
        what = "public weights" if recipe.origin else f"{spec.name}'s examples"
        raise BadInput(f"{what} have windows of their own, and no protocol or context to set")
    if recipe.origin:
        found = _of_public(checkpoint, recipe.origin, spec, splits, blocks, threads, progress)
    elif spec.example:
        found = _of_examples(checkpoint, spec, splits, blocks, threads, progress)
    else:
        window = context or checkpoint.shape.context
        cost = losses.of(
            checkpoint, _held_out(splits, window), protocol, window=window, most=blocks,
            threads=threads, progress=progress,
        )  # fmt: skip
        found = of_text(spec, splits, cost, checkpoint.shape.context, trained_on)
    return replace(found, seconds=round(time.perf_counter() - begin, 3))


def _held_out(splits: Splits, room: int) -> Array:
    return splits.test if splits.test.size > room else splits.validation


def of_text(
    spec: Corpus, splits: Splits, cost: losses.Losses, context: int, trained_on: str
) -> Quality:
    """The summary over parts of the text that are no shorter than a window."""
    least = context if cost.protocol == "carried" else max(context, cost.window)
    parts = np.array_split(cost.nats, max(2, min(BLOCKS, cost.nats.size // least)))
    bits = [float(part.mean()) / math.log(2) for part in parts]
    found = _summary(spec, splits, bits, [part.size for part in parts], trained_on)
    flags = (*found.flags, BEYOND) if cost.window > context else found.flags
    return replace(found, protocol=cost.protocol, context=cost.window, flags=flags)


def _of_examples(
    checkpoint: Checkpoint,
    spec: Corpus,
    splits: Splits,
    most: int | None,
    threads: int,
    progress: Callable[[int, int], None],
) -> Quality:
    tokens = _held_out(splits, spec.example).astype(np.int64).reshape(-1, spec.example)[:most]
    measure = examples.bits if spec.metric == "bits per answer" else examples.right
    results = measure(checkpoint, tokens, spec.scored, threads=threads, progress=progress)
    trained_on = str(checkpoint.provenance.get("corpus_hash", ""))
    found = _summary(spec, splits, list(results), [len(spec.scored)] * len(results), trained_on)
    return replace(found, context=spec.example)


def _of_public(
    checkpoint: Checkpoint,
    origin: Origin,
    spec: Corpus,
    splits: Splits,
    most: int | None,
    threads: int,
    progress: Callable[[int, int], None],
) -> Quality:
    """The score over windows of bytes, read as the model's own tokens."""
    held_out = _held_out(splits, min(checkpoint.shape.context, reading.WINDOW))
    count = held_out.size if most is None else most
    windows = reading.windows(checkpoint, origin, spec, held_out, count)
    room, bits = max(window.inputs.size for window in windows), []
    with engine.open_session(checkpoint, room=room, threads=threads) as session:
        for done, window in enumerate(windows):
            engine.reset(session)
            logits = losses.finite(engine.feed(session, window.inputs, every=True), session.name)
            nats = losses.nats_of(logits, window.targets).sum()
            bits.append(float(nats) / (math.log(2) * window.size))
            progress(done + 1, len(windows))
    trained_on = str(checkpoint.provenance.get("corpus_hash", ""))
    return _summary(spec, splits, bits, [window.size for window in windows], trained_on)


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
        scored=sum(sizes),
    )
