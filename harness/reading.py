"""Held-out text + tokenizer -> the windows a model of tokens is scored on.

A window is a stretch of bytes that begins and ends between characters. It is read behind the
tokenizer's own beginning or the model's token of beginning, as evaluation harnesses do; where there
is neither, its first token is given, and its bytes are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import BadInput
from harness.folders import tokenizer as tokenizers
from harness.records import Array, Checkpoint, Corpus, Origin

WINDOW = 1024  # bytes, some 250 tokens: a context the smallest models have
GIVEN = -1  # a target that is not scored
MOST = 64  # windows; as many bytes as the built-in corpora hold out


@dataclass(frozen=True, slots=True)
class Window:
    """inputs (n,) and the tokens that follow them (n,): `size` bytes of text, GIVEN left out."""

    inputs: Array
    targets: Array
    size: int


def windows(
    checkpoint: Checkpoint, origin: Origin, spec: Corpus, held_out: Array, blocks: int
) -> list[Window]:
    """Up to `blocks` windows, spread evenly. Raises BadInput, NoTokenizer."""
    if spec.example:
        raise BadInput(f"{spec.name} is made of tokens of its own; public weights read text")
    tokenizer = tokenizers.load(Path(origin.folder), checkpoint.shape.vocabulary)
    text, size = held_out.tobytes(), min(WINDOW, checkpoint.shape.context - 1)
    count = len(text) // max(size, 1)
    if count < 2:
        raise BadInput(f"the held-out text of {spec.name} has no two windows of {size} bytes")
    chosen = np.unique(np.linspace(0, count - 1, min(count, blocks, MOST)).astype(int))
    cuts = [(_between(text, i * size), _between(text, (i + 1) * size)) for i in chosen]
    found = [_window(tokenizer, text[a:b]) for a, b in cuts]
    return [window for window in found if window.size > 0]


def _window(tokenizer: tokenizers.Tokenizer, raw: bytes) -> Window:
    text, size = raw.decode("utf-8", "replace"), len(raw)
    ids = np.array([*tokenizer.start, *tokenizers.encode(tokenizer, text)], np.int64)
    if not tokenizer.start and size:
        size -= tokenizers.first_bytes(tokenizer, text)
    targets = ids[1:].copy()
    targets[: max(0, len(tokenizer.start) - 1)] = GIVEN
    return Window(ids[:-1], targets, size)


def _between(text: bytes, at: int) -> int:
    """The first place from `at` on where a character begins."""
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return at
