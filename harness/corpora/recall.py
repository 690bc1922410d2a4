"""Multi-query associative recall, generated: pairs of key and value, then each key asked again.

An example of K pairs is `k v` K times in random order, then the same pairs in another order; the
model is asked for the values of the second half. Keys of an example differ; values may repeat.
Source: Arora et al. 2023, "Zoology", section 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.corpora._splits import splits
from harness.records import Corpus, Splits

VOCABULARY = 64  # keys are tokens 0..31, values 32..63
PAIRS = 8
SEED = 20240613
EXAMPLES = {"validation": 256, "test": 2048}
NOT_SCORED = -100
CURRICULUM = ((0.2, 2), (0.4, 4), (1.0, PAIRS))  # (until this share of training, pairs)


def examples(random: np.random.Generator, count: int, pairs: int) -> NDArray[np.int64]:
    """Tokens (count, 4 pairs) of independent examples."""
    half = VOCABULARY // 2
    keys = random.permuted(np.tile(np.arange(half), (count, 1)), axis=1)[:, :pairs]
    values = half + random.integers(0, half, (count, pairs))
    order = random.permuted(np.tile(np.arange(pairs), (count, 1)), axis=1)
    asked = (np.take_along_axis(keys, order, 1), np.take_along_axis(values, order, 1))
    told = np.stack([keys, values], axis=2).reshape(count, 2 * pairs)
    return np.concatenate([told, np.stack(asked, axis=2).reshape(count, 2 * pairs)], axis=1)


def scored(pairs: int) -> tuple[int, ...]:
    """Positions of the asked keys, whose next token is the answer."""
    return tuple(range(2 * pairs, 4 * pairs, 2))


def pairs_at(gone: float) -> int:
    """Pairs an example has when `gone` of training is over: without easy ones nobody learns."""
    return next((pairs for until, pairs in CURRICULUM if gone < until), PAIRS)


def sample(
    random: np.random.Generator, b: int, n: int, gone: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """About b*n tokens of examples as inputs and targets, only the answers scored."""
    pairs = pairs_at(gone)
    tokens = examples(random, max(1, b * n // (4 * pairs)), pairs)
    targets = np.full_like(tokens, NOT_SCORED)
    asked = list(scored(pairs))
    targets[:, asked] = tokens[:, [position + 1 for position in asked]]
    return tokens, targets


def load() -> Splits:
    """Held-out examples of 8 pairs; the train split is empty because `sample` makes it."""
    parts = [
        examples(np.random.default_rng([SEED, i]), count, PAIRS).astype(np.uint8).tobytes()
        for i, count in enumerate(EXAMPLES.values())
    ]
    return splits(b"", *parts)


SPEC = Corpus(
    name="recall",
    summary="8 key-value pairs, then each key asked again; generated",
    load=load,
    metric="accuracy",
    source="Arora et al. 2023, Zoology",
    vocabulary=VOCABULARY,
    example=4 * PAIRS,
    scored=scored(PAIRS),
    sample=sample,
)
