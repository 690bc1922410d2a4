"""Generated examples with questions -> inputs and targets, and what training shows of them when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NOT_SCORED = -100
Curriculum = Sequence[tuple[float, int]]  # (until this share of training, how hard at most)


def questions(
    tokens: NDArray[np.int64], scored: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs and targets (count,n): what follows the scored positions is asked, nothing else."""
    targets = np.full_like(tokens, NOT_SCORED)
    asked = list(scored)
    targets[:, asked] = tokens[:, [position + 1 for position in asked]]
    return tokens, targets


def stage(curriculum: Curriculum, gone: float) -> int:
    """How hard examples are when `gone` of training is over: without easy ones nobody learns."""
    return next((most for until, most in curriculum if gone < until), curriculum[-1][1])
