"""Multi-query associative recall, generated: pairs of key and value, then each key asked again.

An example of K pairs is `k v` K times in random order, then the same pairs in another order; the
model is asked for the values of the second half. Keys of an example differ; values may repeat.
`recall-far` has other tokens between the two halves, as many as its distance.
Source: Arora et al. 2023, "Zoology", section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from harness.corpora._examples import questions, stage
from harness.corpora._splits import splits
from harness.records import Corpus, Examples, Splits

VOCABULARY = 64  # keys are tokens 0..31, values 32..63
PAIRS = 8
SEED = 20240613
EXAMPLES = {"validation": 256, "test": 2048}
CURRICULUM = ((0.2, 2), (0.4, 4), (1.0, PAIRS))  # pairs
ASKED = (2, 4, 8, 16)  # pairs that accuracy is told by; twice as many as `recall` is trained on

FILLERS = 32  # tokens 64..95 of `recall-far`
DISTANCE = 64
FAR = (0, 16, 32, 64, 128, 256)  # distances that accuracy is told by; trained up to half the last
FAR_PAIRS = ((0.2, 2), (0.3, 4), (0.4, 8), (1.0, 16))
FAR_TOKENS = ((0.4, 16), (0.5, 32), (0.6, 64), (1.0, 128))


def examples(
    random: np.random.Generator, count: int, pairs: int, distance: int = 0
) -> NDArray[np.int64]:
    """Tokens (count, 4 pairs + distance) of independent examples."""
    half = VOCABULARY // 2
    keys = random.permuted(np.tile(np.arange(half), (count, 1)), axis=1)[:, :pairs]
    values = half + random.integers(0, half, (count, pairs))
    order = random.permuted(np.tile(np.arange(pairs), (count, 1)), axis=1)
    asked = (np.take_along_axis(keys, order, 1), np.take_along_axis(values, order, 1))
    told = np.stack([keys, values], axis=2).reshape(count, 2 * pairs)
    between = VOCABULARY + random.integers(0, FILLERS, (count, distance))
    last = np.stack(asked, axis=2).reshape(count, 2 * pairs)
    return np.concatenate([told, between, last], axis=1)


def scored(pairs: int, distance: int = 0) -> tuple[int, ...]:
    """Positions of the asked keys, whose next token is the answer."""
    return tuple(range(2 * pairs + distance, 4 * pairs + distance, 2))


def sample(
    random: np.random.Generator, b: int, n: int, gone: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """About b*n tokens of examples as inputs and targets, only the answers scored."""
    pairs = stage(CURRICULUM, gone)
    tokens = examples(random, max(1, b * n // (4 * pairs)), pairs)
    return questions(tokens, scored(pairs))


def sample_far(
    random: np.random.Generator, b: int, n: int, gone: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same, all examples of a step with one number of pairs and one distance, drawn afresh."""
    most = stage(FAR_PAIRS, gone)
    pairs = int(random.choice([p for p in ASKED if p <= most]))
    distance = int(random.integers(0, stage(FAR_TOKENS, gone) + 1))
    tokens = examples(random, max(1, b * n // (4 * pairs + distance)), pairs, distance)
    return questions(tokens, scored(pairs, distance))


def load() -> Splits:
    """Held-out examples of 8 pairs; the train split is empty because `sample` makes it."""
    return _held_out(0)


def load_far() -> Splits:
    return _held_out(DISTANCE)


def series() -> Mapping[str, Mapping[int, Examples]]:
    return {"pairs": {pairs: _harder(pairs, 0) for pairs in ASKED}}


def series_far() -> Mapping[str, Mapping[int, Examples]]:
    return {
        "pairs": {pairs: _harder(pairs, DISTANCE) for pairs in ASKED},
        "distance": {distance: _harder(PAIRS, distance) for distance in FAR},
    }


def _held_out(distance: int) -> Splits:
    parts = [
        examples(np.random.default_rng([SEED, i]), count, PAIRS, distance).astype(np.uint8)
        for i, count in enumerate(EXAMPLES.values())
    ]
    return splits(b"", *(part.tobytes() for part in parts))


def _harder(pairs: int, distance: int) -> Examples:
    random = np.random.default_rng([SEED, pairs, distance])
    tokens = examples(random, EXAMPLES["validation"], pairs, distance)
    return Examples(tokens, scored(pairs, distance))


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
    series=series,
)
VARIANTS = (
    Corpus(
        name="recall-far",
        summary="recall with 64 other tokens before the questions; trained on up to 16 pairs",
        load=load_far,
        metric="accuracy",
        source="Arora et al. 2023, Zoology",
        vocabulary=VOCABULARY + FILLERS,
        example=4 * PAIRS + DISTANCE,
        scored=scored(PAIRS, DISTANCE),
        sample=sample_far,
        series=series_far,
    ),
)
