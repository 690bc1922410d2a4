"""Recipe -> a turn of a few optimiser steps, to be timed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import plugins
from harness.records import Recipe
from harness.training import batches
from harness.training.loop import Plan, optimise
from harness.training.train import budget_loss, explore, fresh, token_loss


def one_thread() -> None:
    """PyTorch on one thread, so that the same work gives the same bits wherever it runs."""
    torch.set_num_threads(1)


def turn(recipe: Recipe, steps: int) -> Callable[[], object]:
    """The very loop that trains, for so many steps; nothing is kept on disk."""
    corpus = plugins.pick(plugins.corpora(), recipe.corpus, "corpus")
    splits, model, window = corpus.load(), fresh(recipe), recipe.shape.context
    plan = Plan(
        steps=steps,
        tokens_a_step=recipe.batch * window,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        key="",
        warm_up=0,
    )

    def loss(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = batches.at_step(
            corpus, splits, recipe.batch, window, recipe.seed, step, steps
        )
        explore(model, recipe, step, steps)
        return token_loss(model(inputs), targets), budget_loss(model, recipe, step / steps)

    return lambda: optimise(model, loss, plan)
