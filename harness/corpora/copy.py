"""Copying, generated: a random string, a sign that it is over, then the string again.

The model is asked for every symbol of the second string. Symbols repeat, so that the one before
does not tell which comes next: what is copied must be known by its place, or by several before it.
Source: the copy task of Graves et al. 2014, "Neural Turing Machines", section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from harness.corpora._examples import questions, stage
from harness.corpora._splits import splits
from harness.records import Corpus, Examples, Splits

VOCABULARY = 64
OVER = VOCABULARY - 1  # symbols are below it
LENGTH = 32
SEED = 20240614
EXAMPLES = {"validation": 256, "test": 1024}
CURRICULUM = ((0.1, 4), (0.25, 8), (0.4, 16), (1.0, LENGTH))  # symbols
ASKED = (4, 8, 16, 32, 64)  # lengths that accuracy is told by, to twice what is trained


def examples(random: np.random.Generator, count: int, length: int) -> NDArray[np.int64]:
    """Tokens (count, 2 length + 1) of independent examples."""
    string = random.integers(0, OVER, (count, length))
    return np.concatenate([string, np.full((count, 1), OVER), string], axis=1)


def scored(length: int) -> tuple[int, ...]:
    """From the sign on to the last symbol but one."""
    return tuple(range(length, 2 * length))


def sample(
    random: np.random.Generator, b: int, n: int, gone: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """About b*n tokens of examples of one length, drawn afresh, as inputs and targets."""
    length = int(random.integers(1, stage(CURRICULUM, gone) + 1))
    tokens = examples(random, max(1, b * n // (2 * length + 1)), length)
    return questions(tokens, scored(length))


def load() -> Splits:
    """Held-out strings of 32; the train split is empty because `sample` makes it."""
    parts = [
        examples(np.random.default_rng([SEED, i]), count, LENGTH).astype(np.uint8)
        for i, count in enumerate(EXAMPLES.values())
    ]
    return splits(b"", *(part.tobytes() for part in parts))


def series() -> Mapping[str, Mapping[int, Examples]]:
    return {"length": {length: _harder(length) for length in ASKED}}


def _harder(length: int) -> Examples:
    random = np.random.default_rng([SEED, length])
    return Examples(examples(random, EXAMPLES["validation"], length), scored(length))


SPEC = Corpus(
    name="copy",
    summary="a random string of 32 symbols, then all of it asked again; generated",
    load=load,
    metric="accuracy",
    source="Graves et al. 2014, Neural Turing Machines, section 4.1",
    vocabulary=VOCABULARY,
    example=2 * LENGTH + 1,
    scored=scored(LENGTH),
    sample=sample,
    series=series,
)
