"""Recipe + teacher's checkpoint -> a student's checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import plugins
from harness.checkpoint import checkpoint_hash
from harness.errors import BadInput
from harness.records import Checkpoint, Recipe
from harness.training import batches
from harness.training.loop import Watch, optimise
from harness.training.model import Model, from_checkpoint, to_checkpoint
from harness.training.train import (
    budget_loss,
    explore,
    fresh,
    plan_of,
    provenance,
    token_loss,
)

HIDDEN_WEIGHT = 0.1  # of the distance of layers, whose values are about 1, beside a loss in nats


def distil(
    recipe: Recipe,
    teacher: Checkpoint,
    watch: Watch | None = None,
    *,
    share: float = 0.5,
    temperature: float = 2.0,
    hidden: bool = False,
    threads: int = 1,
    state_folder: Path | None = None,
) -> Checkpoint:
    """Train the recipe's stack on its corpus towards the teacher's next-token distribution.

    Follows Hinton et al. 2015: KL divergence at a temperature, times its square, as a share of
    the loss; the rest is the text's own next token. hidden: and towards what each layer of the
    teacher hands on.
    Raises BadInput when the two do not share a vocabulary, or layers where they matter,
    TrainingFailed.
    """
    if teacher.shape.vocabulary != recipe.shape.vocabulary:
        raise BadInput(
            f"{recipe.name} has {recipe.shape.vocabulary} symbols and its teacher "
            f"{teacher.recipe.name} has {teacher.shape.vocabulary}; they must be the same"
        )
    if hidden and teacher.shape.layers != recipe.shape.layers:
        raise BadInput(
            f"{recipe.name} has {recipe.shape.layers} layers and its teacher {teacher.recipe.name} "
            f"has {teacher.shape.layers}; what they hand on is compared one to one"
        )
    corpus = plugins.pick(plugins.corpora(), recipe.corpus, "corpus")
    splits = corpus.load()
    parent = checkpoint_hash(teacher)
    key = f"distil {parent} {temperature} {share} {HIDDEN_WEIGHT if hidden else 0}"
    plan = plan_of(recipe, splits, threads, state_folder, key)
    model, wise = fresh(recipe), from_checkpoint(teacher)
    pair = Pair(model, wise) if hidden else None

    def loss(step: int) -> tuple[Tensor, Tensor]:
        inputs, targets = batches.at_step(
            corpus, splits, recipe.batch, recipe.shape.context, recipe.seed, step, plan.steps
        )
        with torch.no_grad():
            wanted = wise(inputs)
        explore(model, recipe, step, plan.steps)
        logits = model(inputs)
        text = token_loss(logits, targets)
        soft = divergence(logits, wanted, targets, temperature)
        extra = share * (soft - text) + budget_loss(model, recipe, step / plan.steps)
        return text, extra + HIDDEN_WEIGHT * pair.distance() if pair else extra

    trace = optimise(pair or model, loss, plan, watch)
    found = provenance(model, recipe, splits, trace, threads)
    return to_checkpoint(model, recipe, found | {"teacher": teacher.recipe.name, "parent": parent})


class Pair(nn.Module):
    """A student and a learned map of each of its layers to the width of the teacher's.

    It keeps what the layers of both handed on last. The teacher is no part of it, so it stays.
    """

    def __init__(self, student: Model, teacher: Model) -> None:
        super().__init__()
        self.student = student
        width, wide = student.shape.width, teacher.shape.width
        maps = (torch.eye(wide, width) for _ in student.blocks)
        self.maps = nn.ParameterList(nn.Parameter(m) for m in maps)
        self.mine, self.wanted = _kept(student), _kept(teacher)

    def distance(self) -> Tensor:
        """Mean square, over layers and features, of what is handed on brought to unit size."""
        pairs = zip(self.maps, self.mine, self.wanted, strict=True)
        ones = [(F.normalize(F.linear(x, m), dim=-1), F.normalize(y, dim=-1)) for m, x, y in pairs]
        return torch.stack([(a - b).square().sum(-1).mean() for a, b in ones]).mean()


def _kept(model: Model) -> list[Tensor]:
    """What each block of the model returned last, filled anew by every forward."""
    found = [torch.zeros(())] * len(model.blocks)
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(
            lambda module, given, out, i=i: found.__setitem__(i, out)  # type: ignore[misc]
        )
    return found


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
