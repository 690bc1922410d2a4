"""A student of the same shape trained towards a larger teacher's next-token distribution."""

from __future__ import annotations

from collections.abc import Callable

from harness import candidates
from harness import checkpoint as checkpoints
from harness.errors import BadInput
from harness.records import Checkpoint, Recipe, Transform
from harness.transforms._tune import watcher


def apply(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """A student with the recipe's budget; the undistilled weights give only their shape.

    Raises BadInput when the teacher has not been trained.
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
    return distil(student, checkpoints.load(path), watcher("distil", progress))


SPEC = Transform(
    name="distil",
    summary="trained towards a larger teacher of the same mixer",
    reshape=lambda shape: shape,
    apply=apply,
    source="Hinton, Vinyals & Dean 2015",
)
