"""What transforms share: data to choose by, and a short fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness import plugins
from harness.records import Array, Checkpoint, Recipe

if TYPE_CHECKING:
    from harness.training.loop import Progress

WINDOWS, TOKENS = 16, 128  # of training text to choose by
FINETUNING_TOKENS = 262_144


def inputs_of(checkpoint: Checkpoint, part: Literal["mixer", "ffn"]) -> list[Array]:
    """What enters each layer's mixer (b,n,width) or ffn (b*n,width) on training text."""
    import torch  # noqa: PLC0415

    from harness.training.model import from_checkpoint  # noqa: PLC0415

    corpus = plugins.pick(plugins.corpora(), checkpoint.recipe.corpus, "corpus")
    text, rng = corpus.load().train, np.random.default_rng(checkpoint.recipe.seed)
    if corpus.example:  # as many tokens in whole examples
        examples = text.reshape(-1, corpus.example)
        windows = examples[rng.integers(0, len(examples), WINDOWS * TOKENS // corpus.example)]
    else:
        starts = rng.integers(0, len(text) - TOKENS, WINDOWS)
        windows = np.stack([text[s : s + TOKENS] for s in starts])
    tokens = torch.from_numpy(windows.astype(np.int64))
    model, seen = from_checkpoint(checkpoint), []
    hooks = [
        getattr(block, part).register_forward_pre_hook(
            lambda module, given: seen.append(given[0].detach().numpy().copy())
        )
        for block in model.blocks
    ]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return seen if part == "mixer" else [x.reshape(-1, x.shape[-1]) for x in seen]


def tuned(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    from harness.training.finetune import finetune  # noqa: PLC0415

    tokens = recipe.tuning_tokens or FINETUNING_TOKENS
    return finetune(checkpoint, tokens, watcher("fine-tune", progress))


def watcher(stage: str, progress: Callable[[str, int, int], None]) -> Callable[[Progress], None]:
    return lambda now: progress(f"{stage}, loss {now.loss:.3f}", now.step, now.steps)
