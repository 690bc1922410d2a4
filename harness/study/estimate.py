"""Tasks -> how long they may take, from tokens and from how fast this machine trains."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import Recipe, Shape
from harness.study import timing
from harness.study.schedule import alone, tokens
from harness.study.task import Task

SECONDS_A_TRIAL = 6.0  # to open, compile or find a plan, and score a small model
SECONDS_A_ROUND = 1.0  # two turns of a few steps


def seconds(tasks: Sequence[Task], width: int) -> dict[str, float]:
    """By the task's key, when `width` run at once; each stack takes a few steps for that."""
    pace: dict[tuple[Shape, int, float], float] = {}
    found = {}
    for task in tasks:
        total = SECONDS_A_TRIAL * len(task.points)
        total += sum(SECONDS_A_ROUND * point.rounds for point in task.points)
        if task.base is not None and (count := tokens(task)):
            stack = (task.base.shape, task.base.batch, task.base.active)
            if stack not in pace:
                pace[stack] = _pace(task.base)
            total += count * pace[stack]
        found[task.key] = total / (1 if alone(task) else width)
    return found


def _pace(recipe: Recipe) -> float:
    return timing.a_token(recipe)
