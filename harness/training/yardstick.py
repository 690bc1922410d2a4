"""A block's name -> its validation loss in the known small configuration on TinyShakespeare.

The configuration is the CPU one of nanoGPT's README: 4 layers, 4 heads, width 128, context 64,
batch 12, 2000 steps, characters as tokens; it reports about 1.88 nats a character.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness import plugins
from harness.checkpoint import folder
from harness.errors import UnknownName
from harness.records import Shape
from harness.training.batches import windows
from harness.training.evaluate import held_out_loss
from harness.training.loop import Plan, Watch, optimise
from harness.training.model import Model
from harness.training.plain_gpt import PlainGpt
from harness.training.train import token_loss

GOALS = {"plain": 1.88, "rope": 1.66}  # nats a character to reach
LEARNING_RATES = {"plain": 2e-3, "rope": 3e-3}
STEPS, BATCH, CONTEXT = 2000, 12, 64
WIDTH, LAYERS, HEADS, HIDDEN = 128, 4, 4, 352


def run(
    which: str,
    watch: Watch | None = None,
    *,
    threads: int = 1,
    steps: int = STEPS,
    seed: int = 0,
    state_folder: Path | None = None,
) -> dict[str, str | float]:
    """Train the plain GPT block ("plain") or this project's attention block ("rope").

    The loss is over the whole last 10 % of the text in windows of 64 characters.
    Raises UnknownName, BadInput when the text cannot be had, TrainingFailed.
    """
    if which not in GOALS:
        raise UnknownName(f"unknown yardstick {which!r}; known: {', '.join(GOALS)}")
    corpus = plugins.pick(plugins.corpora(), "characters", "corpus")
    splits = corpus.load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(which, corpus.vocabulary)
    plan = Plan(
        steps=steps,
        tokens_a_step=BATCH * CONTEXT,
        learning_rate=LEARNING_RATES[which],
        seed=seed,
        key=f"yardstick {which} {splits.hash}",
        threads=threads,
        folder=folder() / "unfinished" if state_folder is None else state_folder,
    )

    def loss(step: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng([seed, step])
        inputs, targets = windows(splits.train, random, BATCH, CONTEXT)
        return token_loss(model(inputs), targets), torch.zeros(())

    trace = optimise(model, loss, plan, watch)
    return {
        "which": which,
        "nats_per_character": round(held_out_loss(model, splits.test, CONTEXT).nats, 4),
        "goal": GOALS[which],
        "characters": steps * BATCH * CONTEXT,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(trace.seconds, 1),
        "seed": seed,
    }


def _model(which: str, vocabulary: int) -> nn.Module:
    if which == "plain":
        return PlainGpt(vocabulary, WIDTH, LAYERS, HEADS, CONTEXT)
    return Model(
        Shape(
            vocabulary=vocabulary,
            width=WIDTH,
            layers=LAYERS,
            mixers=("attention",) * LAYERS,
            ffn="dense",
            hidden=HIDDEN,
            heads=HEADS,
            kv_heads=HEADS,
            head_width=WIDTH // HEADS,
            channels=8,
            context=CONTEXT,
        )
    )
