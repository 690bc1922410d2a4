"""TinyShakespeare as its 65 characters, the well-known set-up: a token is a character.

`characters-tuning` splits the same training text once more, so that settings are chosen on text
that no result is reported on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.corpora import tinyshakespeare
from harness.corpora._splits import splits
from harness.records import Corpus, Splits

VOCABULARY = 65
TUNING_SHARE = 0.9  # of the training text; settings are compared on the rest of it


def indexed(text: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes as places in the sorted set of those that occur."""
    return np.unique(text, return_inverse=True)[1].astype(np.uint8)


def symbols() -> bytes:
    """The characters in the order of their places."""
    plays = tinyshakespeare.load()
    return np.unique(np.concatenate([plays.train, plays.test])).tobytes()


def load() -> Splits:
    """Train is the first 90 % of the text, validation and test are the last 10 %."""
    plays = tinyshakespeare.load()
    tokens = indexed(np.concatenate([plays.train, plays.test])).tobytes()
    cut = len(plays.train)
    return splits(tokens[:cut], tokens[cut:], tokens[cut:])


def load_tuning() -> Splits:
    """The training text of `characters` alone, in the same way."""
    tokens = load().train.tobytes()
    cut = int(TUNING_SHARE * len(tokens))
    return splits(tokens[:cut], tokens[cut:], tokens[cut:])


SPEC = Corpus(
    name="characters",
    summary="tinyshakespeare as its 65 characters, the well-known set-up",
    load=load,
    metric="bits per byte",
    source=tinyshakespeare.URL,
    vocabulary=VOCABULARY,
    symbols=symbols,
)
VARIANTS = (
    Corpus(
        name="characters-tuning",
        summary="the training text of `characters`, split once more to choose settings by",
        load=load_tuning,
        metric="bits per byte",
        source=tinyshakespeare.URL,
        vocabulary=VOCABULARY,
        symbols=symbols,
    ),
)
