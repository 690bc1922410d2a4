"""Recipe -> a turn of a few optimiser steps, to be timed, and the bytes that PyTorch holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from harness import plugins
from harness.optimiser import Held
from harness.records import Recipe
from harness.training import batches, loop
from harness.training.loop import Objective, Plan, optimise
from harness.training.model import Model
from harness.training.train import budget_loss, explore, fresh, token_loss


def one_thread() -> None:
    """PyTorch on one thread, so that the same work gives the same bits wherever it runs."""
    torch.set_num_threads(1)


def turn(recipe: Recipe, steps: int) -> Callable[[], object]:
    """The very loop that trains, for so many steps; nothing is kept on disk."""
    model = fresh(recipe)
    plan, loss = _plan(recipe, steps, 1), _objective(recipe, model, steps)
    return lambda: optimise(model, loss, plan)


def clocked(recipe: Recipe, threads: int) -> Callable[[int, Callable[[], None]], None]:
    """run(steps, mark): the loop for so many steps, between two calls of `mark`.

    A step before the first makes the moments, and is not among them.
    """
    model = fresh(recipe)

    def run(steps: int, mark: Callable[[], None]) -> None:
        plan, loss = _plan(recipe, steps + 1, threads), _objective(recipe, model, steps + 1)
        optimise(model, loss, plan, lambda now: mark() if now.step in (1, steps + 1) else None)

    return run


def held(recipe: Recipe) -> Held:
    """The bytes of the storages that PyTorch holds for one step, each counted once."""
    model = fresh(recipe)
    parameters = list(model.parameters())
    own = {_place(t) for t in (*parameters, *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _place(tensor) not in own:
            kept[_place(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value, penalty = _objective(recipe, model, 1)(0)
    (value + penalty).backward()  # type: ignore[no-untyped-call]
    optimiser = loop.optimiser_of(model)
    optimiser.step()
    gradients = [p.grad for p in parameters if p.grad is not None]
    moments = [t for state in optimiser.state.values() for t in state.values()]
    return Held(
        weights=_bytes(parameters),
        gradients=_bytes(gradients),
        moments=_bytes(moments),
        kept=_bytes(kept.values()),
    )


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def _plan(recipe: Recipe, steps: int, threads: int) -> Plan:
    return Plan(
        steps=steps,
        tokens_a_step=recipe.batch * recipe.shape.context,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        key="",
        threads=threads,
        warm_up=0,
    )


def _objective(recipe: Recipe, model: Model, steps: int) -> Objective:
    corpus = plugins.pick(plugins.corpora(), recipe.corpus, "corpus")
    splits, window = corpus.load(), recipe.shape.context

    def loss(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = batches.at_step(
            corpus, splits, recipe.batch, window, recipe.seed, step, steps
        )
        explore(model, recipe, step, steps)
        return token_loss(model(inputs), targets), budget_loss(model, recipe, step / steps)

    return loss
