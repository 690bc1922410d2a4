"""Made-up plays for tests that need a text and no network: 65 characters, words that come again."""

from __future__ import annotations

import numpy as np

from harness.corpora._splits import splits
from harness.records import Splits

CHARACTERS = b"\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIZE, KNOWN = 1_115_394, 300  # characters, as in the real plays, and different words


def load() -> Splits:
    """Parted as `tinyshakespeare` is; a few words are frequent, as in any text."""
    rng = np.random.default_rng(0)
    letters = [chr(c) for c in CHARACTERS]
    known = ["".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(KNOWN)]
    often = 1 / np.arange(1, KNOWN + 1)
    words = rng.choice(known, SIZE // 3, p=often / often.sum())
    text = (CHARACTERS + " ".join(words).encode())[:SIZE]
    cut = int(0.9 * SIZE)
    return splits(text[:cut], text[cut:], text[cut:])
