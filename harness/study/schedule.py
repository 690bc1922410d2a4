"""Points -> tasks: what is trained once, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness import candidates
from harness.checkpoint import file_name, find, recipe_hash
from harness.records import Recipe
from harness.study import rows
from harness.study.plan import STEP_TIME, Point, key
from harness.study.task import Task


def tasks(points: Iterable[Point], folder: Path) -> list[Task]:
    """A task for each base with a trial that is missing: teachers first, then a seed of every arm
    after the other, timings last.

    A teacher whose checkpoint is on this machine is a task only if it is scored itself.
    """
    bases: dict[str, Recipe] = {}
    missing: dict[str, list[Point]] = {}
    teachers: dict[str, Recipe] = {}
    timed: list[Task] = []
    for point in points:
        if rows.done(folder, point):
            continue
        if point.protocol == STEP_TIME:
            name = f"{point.recipe.name} against {point.against.name if point.against else ''}"
            timed.append(Task(key=key(point), name=name, base=None, points=(point,)))
            continue
        base = candidates.base(point.recipe)
        at = recipe_hash(base)
        bases.setdefault(at, base)
        missing.setdefault(at, []).append(point)
        if (teacher := candidates.teacher(point.recipe)) is not None:
            teachers[recipe_hash(teacher)] = teacher
    for at, teacher in teachers.items():
        if at not in bases and find(teacher) is None:
            bases[at] = teacher
    made = [
        Task(
            key=at,
            name=f"{base.name} on {base.corpus}, seed {base.seed}",
            base=base,
            points=tuple(missing.get(at, ())),
            needs=_needs(missing.get(at, ())),
            shared=at in teachers,
        )
        for at, base in bases.items()
    ]
    made.sort(key=lambda task: (not task.shared, task.base.seed if task.base else 0))
    return [*made, *timed]


def _needs(points: Iterable[Point]) -> tuple[str, ...]:
    found = (candidates.teacher(point.recipe) for point in points)
    return tuple(dict.fromkeys(file_name(teacher) for teacher in found if teacher is not None))


def alone(task: Task) -> bool:
    """Whether nothing else may run beside it."""
    return any(point.protocol == STEP_TIME for point in task.points)


def tokens(task: Task) -> int:
    """Trained tokens of a task, roughly: its base, and what each step costs beyond packing."""
    if task.base is None:
        return 0
    from harness.transforms._tune import FINETUNING_TOKENS  # noqa: PLC0415

    total = 0 if find(task.base) else task.base.tokens
    steps = {p.recipe.name: p.recipe for p in task.points if p.recipe.steps}
    for recipe in steps.values():
        if find(recipe):
            continue
        total += recipe.tokens if "distil" in recipe.steps else 0
        total += FINETUNING_TOKENS * any(s.startswith("prune") for s in recipe.steps)
    return total
