"""Checkpoint -> the same shapes after a short further training on its corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from harness import plugins
from harness.checkpoint import checkpoint_hash
from harness.records import Checkpoint
from harness.training import batches
from harness.training.loop import Watch, optimise
from harness.training.model import from_checkpoint, to_checkpoint
from harness.training.train import budget_loss, plan_of, provenance, token_loss

RATE_SHARE = 1 / 3  # of the learning rate the weights were first trained with
SEED_OFFSET = 1_000_000  # so that fine-tuning sees other windows than the first steps did


def finetune(
    checkpoint: Checkpoint,
    tokens: int,
    watch: Watch | None = None,
    *,
    keep_zeros: bool = False,
    threads: int = 1,
    state_folder: Path | None = None,
) -> Checkpoint:
    """The checkpoint's weights, unpacked and trained for `tokens` more.

    keep_zeros: weights that are exactly 0 stay so. Deterministic and resumable like `train`.
    """
    recipe = replace(checkpoint.recipe, tokens=tokens, shape=checkpoint.shape)
    recipe = replace(
        recipe,
        learning_rate=recipe.learning_rate * RATE_SHARE,
        seed=recipe.seed + SEED_OFFSET,
    )
    corpus = plugins.pick(plugins.corpora(), recipe.corpus, "corpus")
    splits = corpus.load()
    parent = checkpoint_hash(checkpoint)
    plan = plan_of(recipe, splits, threads, state_folder, f"finetune {parent} {keep_zeros}")
    model = from_checkpoint(checkpoint)
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
        return token_loss(model(inputs), targets), budget_loss(model, recipe)

    trace = optimise(model, loss, plan, watch)
    restore_zeros()
    before = checkpoint.provenance
    found = provenance(model, recipe, splits, trace, threads) | {
        "seed": checkpoint.recipe.seed,
        "losses": before.get("losses", []),
        "finetuning_losses": trace.losses,
        "finetuning_tokens": tokens,
        "parent": parent,
        "seconds": round(before.get("seconds", 0.0) + trace.seconds, 1),
    }
    # weights that saw two texts carry both names, so that they never pass for one of them
    first = str(before.get("corpus_hash", splits.hash))
    found["corpus_hash"] = first if first == splits.hash else f"{first}+{splits.hash}"
    return to_checkpoint(model, checkpoint.recipe, found)
