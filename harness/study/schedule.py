"""Points -> tasks: what is trained once, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from harness import candidates, plugins
from harness.checkpoint import file_name, find, path_of, recipe_hash
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
    """Trained tokens of a task, roughly: its base, a student's, and some for each transform."""
    if task.base is None:
        return 0
    total = 0 if find(task.base) else task.base.tokens
    made: set[tuple[str, ...]] = set()
    for point in task.points:
        if find(point.recipe):
            continue
        steps = point.recipe.steps
        for last, step in enumerate(steps):
            chain = steps[: last + 1]
            if chain in made or step not in plugins.transforms():
                continue
            made.add(chain)
            transform = plugins.transforms()[step]
            tuned = point.recipe.tuning_tokens or transform.tokens
            total += task.base.tokens if transform.taught else tuned if transform.tokens else 0
    return total


def forget(points: Iterable[Point], pattern: str, folder: Path) -> int:
    """Remove the trials of candidates of these names, and their weights here; how many trials.

    What they derive from stays, unless its name is one of them.
    """
    count = 0
    for point in points:
        if fnmatchcase(point.recipe.name, pattern):
            count += rows.forget(folder, point)
            path_of(point.recipe).unlink(missing_ok=True)
    return count
