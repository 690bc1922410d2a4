"""Recipe -> checkpoint, from random weights."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import plugins
from harness.checkpoint import folder, recipe_hash
from harness.errors import BadInput
from harness.records import Checkpoint, Recipe, Splits
from harness.training import batches
from harness.training.evaluate import accuracy, answer_loss, held_out_loss
from harness.training.loop import WARM_UP, Plan, Trace, Watch, optimise
from harness.training.model import Model, to_checkpoint

RANDOM_UNTIL = 0.2  # share of training in which a selective ffn also runs random groups
SHRINKING_UNTIL = 0.5  # share of training in which the budget falls from all groups to its aim
BUDGET_WEIGHT = 10.0  # of the square of the mean share of groups that run above the budget


def train(
    recipe: Recipe,
    watch: Watch | None = None,
    *,
    threads: int = 1,
    state_folder: Path | None = None,
) -> Checkpoint:
    """Train the recipe's stack on its corpus for its token budget.

    The same recipe on one thread, torch version and kind of processor gives the same bits, also
    after interruptions. state_folder: where an interrupted run is kept; the user's by default.
    Raises BadInput when the recipe has steps or no budget, TrainingFailed when it diverges.
    """
    if recipe.steps or recipe.tokens < 1:
        raise BadInput(f"{recipe.name} cannot be trained: it has steps or no token budget")
    corpus = plugins.pick(plugins.corpora(), recipe.corpus, "corpus")
    splits = corpus.load()
    plan = plan_of(recipe, splits, threads, state_folder)
    model = fresh(recipe)

    def loss(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = batches.at_step(
            corpus, splits, recipe.batch, recipe.shape.context, recipe.seed, step, plan.steps
        )
        explore(model, recipe, step, plan.steps)
        return token_loss(model(inputs), targets), budget_loss(model, recipe, step / plan.steps)

    trace = optimise(model, loss, plan, watch)
    return to_checkpoint(model, recipe, provenance(model, recipe, splits, trace, threads))


def plan_of(
    recipe: Recipe, splits: Splits, threads: int, state_folder: Path | None, key: str = ""
) -> Plan:
    """The run that spends the recipe's token budget; `key` names what else it depends on."""
    tokens_a_step = recipe.batch * recipe.shape.context
    steps = max(1, round(recipe.tokens / tokens_a_step))
    return Plan(
        steps=steps,
        warm_up=min(WARM_UP, steps // 5),
        tokens_a_step=tokens_a_step,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        key=f"{recipe_hash(recipe)} {splits.hash} {key}",
        threads=threads,
        folder=folder() / "unfinished" if state_folder is None else state_folder,
    )


def fresh(recipe: Recipe) -> Model:
    """The recipe's stack with initial weights that follow from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Model(recipe.shape)


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy [nats] of logits (b,n,vocabulary) over the targets that are scored."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=batches.IGNORED)


def budget(recipe: Recipe, gone: float) -> float:
    """The mean share of groups that may run when `gone` of training is over: all at first."""
    return recipe.active + (1.0 - recipe.active) * max(0.0, 1.0 - gone / SHRINKING_UNTIL)


def explore(model: Model, recipe: Recipe, step: int, steps: int) -> None:
    """Let selective ffns run random groups, on a share of tokens that falls from 1 to 0."""
    share = max(0.0, 1.0 - step / max(1.0, RANDOM_UNTIL * steps))
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    for ffn in model.ffns():
        if hasattr(ffn, "explore"):
            cast(Any, ffn).explore(share, budget(recipe, step / steps), generator)


def budget_loss(model: Model, recipe: Recipe, gone: float = 1.0) -> Tensor:
    """What ffns ask for beside the text: their own penalties, and groups within the budget.

    Above it every group of every layer and token has one price, which rises with the mean share
    that runs: what is worth less than that is switched off. gone: the share of training so far.
    """
    ffns = [cast(Any, ffn) for ffn in model.ffns()]
    total = torch.zeros(())
    for ffn in ffns:
        if hasattr(ffn, "penalty"):
            total = total + ffn.penalty()
    running = [ffn.running for ffn in ffns if hasattr(ffn, "running")]
    if running:
        above = F.relu(torch.stack(running).mean() - budget(recipe, gone))
        total = total + BUDGET_WEIGHT * above.square()
    return total


def provenance(
    model: nn.Module, recipe: Recipe, splits: Splits, trace: Trace, threads: int
) -> dict[str, Any]:
    """Where weights come from, with their score on the validation split."""
    found: dict[str, Any] = {
        "seed": recipe.seed,
        "commit": commit(),
        "corpus": recipe.corpus,
        "corpus_hash": splits.hash,
        "losses": trace.losses,
        "seconds": round(trace.seconds, 1),
        "threads": threads,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": platform.machine(),
    }
    corpus = plugins.pick(plugins.corpora(), recipe.corpus, "corpus")
    if corpus.metric == "accuracy":
        found["validation_accuracy"] = round(accuracy(model, splits.validation, corpus), 5)
    elif corpus.example:
        found["validation_bits"] = round(answer_loss(model, splits.validation, corpus).bits, 5)
    elif len(splits.validation) > recipe.shape.context:
        loss = held_out_loss(model, splits.validation, recipe.shape.context)
        found["validation_bits"] = round(loss.bits, 5)
        found["validation_tokens"] = loss.tokens
    return found


def commit() -> str:
    """The commit of the source tree in use; "" for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
