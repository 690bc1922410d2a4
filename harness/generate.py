"""Logits -> the next tokens, one at a time, and the text they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.engines.numba import session as engine
from harness.folders import tokenizer as tokenizers
from harness.records import Array, Recipe


@dataclass(frozen=True, slots=True)
class Language:
    """How a candidate reads and writes: `encode` a prompt, `pieces` of bytes from tokens.

    unit: what it calls a token
    """

    unit: str
    encode: Callable[[str], list[int]]
    pieces: Callable[[Iterable[int]], Iterator[bytes]]


def language(recipe: Recipe) -> Language:
    """Bytes of what was trained here, a tokenizer's of public weights. Raises NoTokenizer."""
    if recipe.origin is None:
        return Language("bytes", lambda text: list(text.encode()), _bytes)
    tokenizer = tokenizers.load(Path(recipe.origin.folder), recipe.shape.vocabulary)
    return Language(
        "tokens",
        lambda text: [*tokenizer.before, *tokenizers.encode(tokenizer, text)],
        lambda tokens: _text(tokenizer, tokens),
    )


def _bytes(tokens: Iterable[int]) -> Iterator[bytes]:
    return (bytes([token]) for token in tokens)


def _text(tokenizer: tokenizers.Tokenizer, tokens: Iterable[int]) -> Iterator[bytes]:
    """What each token adds, until one that ends the text; half a character waits for the rest."""
    read: list[int] = []
    written = ""
    for token in tokens:
        if token in tokenizer.stops:
            break
        read.append(token)
        whole = tokenizers.decode(tokenizer, read)
        if whole.endswith("\ufffd"):
            yield b""
            continue
        yield whole.removeprefix(written).encode()
        written = whole


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
