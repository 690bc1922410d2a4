"""A corpus at a step -> input and target tokens, from (seed, step) alone.

Sizes: b sequences, n tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import BadInput
from harness.records import Corpus, Splits

IGNORED = -100  # a target that is not scored; cross_entropy's own convention


def at_step(
    corpus: Corpus, splits: Splits, b: int, n: int, seed: int, step: int, steps: int
) -> tuple[Tensor, Tensor]:
    """Inputs and targets (b,n) int64 of one training step."""
    random = np.random.default_rng([seed, step])
    if corpus.sample is not None:
        inputs, targets = corpus.sample(random, b, n, step / steps)
        return torch.from_numpy(inputs), torch.from_numpy(targets)
    return windows(splits.train, random, b, n)


def windows(
    text: NDArray[np.uint8], random: np.random.Generator, b: int, n: int
) -> tuple[Tensor, Tensor]:
    """b random windows of n tokens, and each token's successor."""
    if len(text) <= n:
        raise BadInput(f"a training text of {len(text)} tokens is too short for windows of {n}")
    starts = random.integers(0, len(text) - n, b)
    found = text[starts[:, None] + np.arange(n + 1)].astype(np.int64)
    return torch.from_numpy(found[:, :-1]), torch.from_numpy(found[:, 1:])
