"""Logits -> the next tokens, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.engines.numba import session as engine
from harness.records import Array


def sample(
    session: engine.Session, logits: Array, count: int, temperature: float, seed: int
) -> Iterator[int]:
    """`count` tokens from logits (vocabulary,) on; temperature 0 takes the likeliest."""
    rng = np.random.default_rng(seed)
    for left in range(count, 0, -1):
        token = choose(logits, temperature, rng)
        yield token
        if left > 1:
            logits = engine.step(session, token)


def choose(logits: Array, temperature: float, rng: np.random.Generator) -> int:
    """A token drawn by softmax(logits / temperature)."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return int(rng.choice(weights.size, p=weights / weights.sum()))
