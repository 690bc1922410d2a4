"""Checkpoint -> the same shapes after a short further training on its corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from harness import plugins
from harness.checkpoint import checkpoint_hash
from harness.errors import BadInput
from harness.records import Checkpoint
from harness.training import batches
from harness.training.distil import divergence
from harness.training.loop import Watch, optimise
from harness.training.model import Model, from_checkpoint, to_checkpoint
from harness.training.rounded import Rounded
from harness.training.train import budget_loss, plan_of, provenance, token_loss

RATE_SHARE = 1 / 3  # of the learning rate the weights were first trained with
SEED_OFFSET = 1_000_000  # so that fine-tuning sees other windows than the first steps did


def finetune(
    checkpoint: Checkpoint,
    tokens: int,
    watch: Watch | None = None,
    *,
    keep_zeros: bool = False,
    rate_share: float = RATE_SHARE,
    form: str = "",
    teacher: Checkpoint | None = None,
    teacher_share: float = 0.5,
    threads: int = 1,
    state_folder: Path | None = None,
) -> Checkpoint:
    """The checkpoint's weights, unpacked and trained for `tokens` more.

    keep_zeros: weights that are exactly 0 stay so; rate_share: of the rate first trained with
    form: round the matrices inside layers to this format's grid in each step, and store them so
    teacher: its distribution of the next token is followed with that share of the loss
    Deterministic and resumable like `train`. Raises BadInput for a form without a grid.
    """
    recipe = replace(checkpoint.recipe, tokens=tokens, shape=checkpoint.shape)
    recipe = replace(
        recipe,
        learning_rate=recipe.learning_rate * rate_share,
        seed=recipe.seed + SEED_OFFSET,
    )
    corpus = plugins.pick(plugins.corpora(), recipe.corpus, "corpus")
    splits = corpus.load()
    parent = checkpoint_hash(checkpoint)
    leader = f"{checkpoint_hash(teacher)} {teacher_share}" if teacher else ""
    key = f"finetune {parent} {keep_zeros} {form} {leader}"
    plan = plan_of(recipe, splits, threads, state_folder, key)
    model = from_checkpoint(checkpoint)
    trained = rounding(model, form) if form else model
    wise = from_checkpoint(teacher) if teacher else None
    kept = [(p, p.detach() != 0) for p in model.parameters() if keep_zeros and p.ndim > 1]

    @torch.no_grad()
    def restore_zeros() -> None:
        for parameter, mask in kept:
            parameter.mul_(mask)

    def loss(step: int) -> tuple[Tensor, Tensor]:
        restore_zeros()
        inputs, targets = batches.at_step(
            corpus, splits, recipe.batch, recipe.shape.context, recipe.seed, step, plan.steps
        )
        logits = trained(inputs)
        text, extra = token_loss(logits, targets), budget_loss(model, recipe)
        if wise is not None:
            with torch.no_grad():
                wanted = wise(inputs)
            extra = extra + teacher_share * (divergence(logits, wanted, targets) - text)
        return text, extra

    trace = optimise(trained, loss, plan, watch)
    restore_zeros()
    before = checkpoint.provenance
    found = provenance(trained, recipe, splits, trace, threads) | {
        "seed": checkpoint.recipe.seed,
        "losses": before.get("losses", []),
        "finetuning_losses": before.get("finetuning_losses", []) + trace.losses,
        "finetuning_tokens": before.get("finetuning_tokens", 0) + tokens,
        "parent": parent,
        "seconds": round(before.get("seconds", 0.0) + trace.seconds, 1),
    }
    if teacher:
        found["teacher"] = teacher.recipe.name
    # weights that saw two texts carry both names, so that they never pass for one of them
    first = str(before.get("corpus_hash", splits.hash))
    found["corpus_hash"] = first if first == splits.hash else f"{first}+{splits.hash}"
    if isinstance(trained, Rounded):
        arrays, formats = trained.packed()
        return replace(checkpoint, arrays=arrays, formats=formats, provenance=found)
    return to_checkpoint(model, checkpoint.recipe, found)


def rounding(model: Model, form: str) -> Rounded:
    """Raises BadInput."""
    spec = plugins.pick(plugins.formats(), form, "format")
    if spec.grid is None:
        raise BadInput(f"{form} has no grid of levels to round to")
    return Rounded(model, spec, spec.grid)
