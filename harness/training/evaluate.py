"""Model + held-out text -> its loss, or that of what is asked, or the share of right answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import BadInput
from harness.records import Corpus


@dataclass(frozen=True, slots=True)
class Loss:
    nats: float  # mean over every scored token
    tokens: int

    @property
    def bits(self) -> float:
        """Per token; bits per byte when tokens are bytes."""
        return self.nats / math.log(2)


@torch.no_grad()
def held_out_loss(model: nn.Module, text: NDArray[np.uint8], context: int, batch: int = 32) -> Loss:
    """Loss over non-overlapping windows of `context` tokens, every position scored.

    State starts afresh in each window; what is left after the last whole window is dropped.
    """
    count = (len(text) - 1) // context
    if count < 1:
        raise BadInput(f"a held-out text of {len(text)} tokens has no window of {context}")
    inputs = torch.from_numpy(text[: count * context].astype(np.int64)).view(count, context)
    targets = torch.from_numpy(text[1 : count * context + 1].astype(np.int64)).view(count, context)
    was_training, total = model.training, 0.0
    model.eval()
    for first in range(0, count, batch):
        logits = model(inputs[first : first + batch]).flatten(0, 1)
        wanted = targets[first : first + batch].flatten()
        total += F.cross_entropy(logits, wanted, reduction="sum").item()
    model.train(was_training)
    return Loss(total / (count * context), count * context)


@torch.no_grad()
def accuracy(model: nn.Module, tokens: NDArray[np.uint8], corpus: Corpus) -> float:
    """Share of the asked tokens that the model ranks first, over a corpus of examples."""
    logits, wanted = _asked(model, tokens, corpus)
    return (logits.argmax(-1) == wanted).float().mean().item()


@torch.no_grad()
def answer_loss(model: nn.Module, tokens: NDArray[np.uint8], corpus: Corpus) -> Loss:
    """Loss of the asked tokens over a corpus of examples."""
    logits, wanted = _asked(model, tokens, corpus)
    return Loss(F.cross_entropy(logits, wanted).item(), wanted.numel())


def _asked(
    model: nn.Module, tokens: NDArray[np.uint8], corpus: Corpus, batch: int = 64
) -> tuple[Tensor, Tensor]:
    """Logits (n,vocabulary) where a token is asked, and that token (n,)."""
    inputs = torch.from_numpy(tokens.astype(np.int64)).view(-1, corpus.example)
    asked = torch.tensor(corpus.scored)
    was_training = model.training
    model.eval()
    logits = torch.cat([model(part)[:, asked].flatten(0, 1) for part in torch.split(inputs, batch)])
    model.train(was_training)
    return logits, inputs[:, asked + 1].flatten()
