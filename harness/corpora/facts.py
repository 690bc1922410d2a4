"""Stored facts, generated: some filler, a key of two symbols, a sign that asks, the key's value.

A value is drawn at random once and for all, so that it can only be remembered: a model's loss on
values is what its weights do not hold. Training and test ask for the same facts: with all pairs of
64 symbols as keys they are 24,576 bits, which a small ffn has to be wide for. As in text, the token
before an answer does not say which answer, and most tokens ask nothing.
`facts-tuning` are other values for the same keys, to choose settings by.
Source: the synthetic facts of Allen-Zhu & Li 2024, "Physics of language models: part 3.3".
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from harness.corpora._examples import questions
from harness.corpora._splits import splits
from harness.records import Corpus, Splits

SYMBOLS = 64  # of keys; as many others are values
SIGN = 2 * SYMBOLS  # that a value is asked
FILLERS = 8  # tokens that mean nothing
VOCABULARY = SIGN + 1 + FILLERS
EXAMPLE = 6  # tokens: two of filler, both halves of the key, the sign, value
ASKED = 4  # after the sign
SEED, TUNING_SEED = 20261126, 20261127


@cache
def facts(seed: int) -> NDArray[np.int64]:
    """All facts (n,6) in an order that says nothing."""
    random = np.random.default_rng(seed)
    keys = np.indices((SYMBOLS, SYMBOLS)).reshape(2, -1).T
    values = SYMBOLS + random.integers(0, SYMBOLS, (len(keys), 1))
    signs = np.full_like(values, SIGN)
    fillers = SIGN + 1 + random.integers(0, FILLERS, (len(keys), 2))
    return random.permutation(np.concatenate([fillers, keys, signs, values], axis=1))


def sample(
    seed: int, random: np.random.Generator, b: int, n: int, gone: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """About b*n tokens of facts drawn at random, as inputs and targets; only values are scored."""
    known = facts(seed)
    count = max(1, b * n // EXAMPLE)
    drawn = known[random.integers(0, len(known), count)]
    drawn[:, :2] = SIGN + 1 + random.integers(0, FILLERS, (count, 2))
    return questions(drawn, (ASKED,))


def load(seed: int) -> Splits:
    """Every fact in each split: what is asked is what was told."""
    text = facts(seed).astype(np.uint8).tobytes()
    return splits(text, text, text)


def _corpus(name: str, summary: str, seed: int) -> Corpus:
    return Corpus(
        name=name,
        summary=summary,
        load=partial(load, seed),
        metric="bits per answer",
        source="after Allen-Zhu & Li 2024, Physics of language models: part 3.3",
        vocabulary=VOCABULARY,
        example=EXAMPLE,
        scored=(ASKED,),
        sample=partial(sample, seed),
    )


SPEC = _corpus("facts", "4,096 keys of two symbols with a random value each; generated", SEED)
VARIANTS = (_corpus("facts-tuning", "other values, to choose settings by", TUNING_SEED),)
