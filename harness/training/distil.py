"""Recipe + teacher's checkpoint -> a student's checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from harness import plugins
from harness.checkpoint import checkpoint_hash
from harness.errors import BadInput
from harness.records import Checkpoint, Recipe
from harness.training import batches
from harness.training.loop import Watch, optimise
from harness.training.model import from_checkpoint, to_checkpoint
from harness.training.train import (
    budget_loss,
    explore,
    fresh,
    plan_of,
    provenance,
    token_loss,
)

TEMPERATURE = 2.0
TEACHER_SHARE = 0.5  # of the loss; the rest is the text's own next token


def distil(
    recipe: Recipe,
    teacher: Checkpoint,
    watch: Watch | None = None,
    *,
    threads: int = 1,
    state_folder: Path | None = None,
) -> Checkpoint:
    """Train the recipe's stack on its corpus towards the teacher's next-token distribution.

    Follows Hinton et al. 2015: KL divergence at a temperature, times its square, plus
    cross-entropy. Raises BadInput when the two do not share a vocabulary, TrainingFailed.
    """
    if teacher.shape.vocabulary != recipe.shape.vocabulary:
        raise BadInput(
            f"{recipe.name} has {recipe.shape.vocabulary} symbols and its teacher "
            f"{teacher.recipe.name} has {teacher.shape.vocabulary}; they must be the same"
        )
    corpus = plugins.pick(plugins.corpora(), recipe.corpus, "corpus")
    splits = corpus.load()
    parent = checkpoint_hash(teacher)
    key = f"distil {parent} {TEMPERATURE} {TEACHER_SHARE}"
    plan = plan_of(recipe, splits, threads, state_folder, key)
    model, wise = fresh(recipe), from_checkpoint(teacher)

    def loss(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = batches.at_step(
            corpus, splits, recipe.batch, recipe.shape.context, recipe.seed, step, plan.steps
        )
        with torch.no_grad():
            wanted = wise(inputs)
        explore(model, recipe, step, plan.steps)
        logits = model(inputs)
        text = token_loss(logits, targets)
        soft = divergence(logits, wanted, targets, TEMPERATURE)
        return text, TEACHER_SHARE * (soft - text) + budget_loss(model, recipe, step / plan.steps)

    trace = optimise(model, loss, plan, watch)
    found = provenance(model, recipe, splits, trace, threads)
    return to_checkpoint(model, recipe, found | {"teacher": teacher.recipe.name, "parent": parent})


def divergence(logits: Tensor, wanted: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean KL divergence [nats] of student from teacher, over the targets (b,n) that are scored.

    logits and wanted (b,n,v) are divided by the temperature, and the result multiplied by its
    square, so that gradients keep their size; Hinton et al. 2015.
    """
    scored = targets != batches.IGNORED
    student = F.log_softmax(logits[scored] / temperature, dim=-1)
    teacher = F.log_softmax(wanted[scored] / temperature, dim=-1)
    found = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return found * temperature**2
