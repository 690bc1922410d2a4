"""A student of the same shape trained towards a larger teacher's next-token distribution.

`distilhidden`: towards what the teacher's layers hand on as well, where both have as many.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness import candidates
from harness import checkpoint as checkpoints
from harness.errors import BadInput
from harness.records import Checkpoint, Recipe, Transform
from harness.transforms._tune import watcher


def apply(
    hidden: bool,
    checkpoint: Checkpoint,
    recipe: Recipe,
    progress: Callable[[str, int, int], None],
) -> Checkpoint:
    """A student with the recipe's budget; the undistilled weights give only their shape.

    Raises BadInput when the teacher has not been trained, or has other layers where they matter.
    """
    from harness.training.distil import distil  # noqa: PLC0415

    teacher = candidates.teacher(recipe)
    if teacher is None:
        raise BadInput(f"{recipe.name} names no teacher")
    path = checkpoints.find(teacher)
    if path is None:
        raise BadInput(
            f"the teacher {teacher.name} is not trained; run `edgewise train {teacher.name}` first"
        )
    student = checkpoint.recipe
    return distil(
        student,
        checkpoints.load(path),
        watcher("distil", progress),
        share=recipe.teacher_share,
        temperature=recipe.temperature,
        hidden=hidden,
    )


def _variant(name: str, summary: str, hidden: bool, source: str) -> Transform:
    return Transform(
        name=name,
        summary=f"trained towards a larger teacher of the same mixer{summary}",
        reshape=lambda shape: shape,
        apply=partial(apply, hidden),
        source=source,
        taught=True,
    )


SPEC = _variant("distil", "", False, "Hinton, Vinyals & Dean 2015")
VARIANTS = (
    _variant(
        "distilhidden",
        ", layer by layer too",
        True,
        "Romero et al. 2015, FitNets; all layers as Jiao et al. 2020, TinyBERT",
    ),
)
