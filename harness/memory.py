"""Recipe + context -> DoesNotFit, before anything is made, where this machine cannot hold it."""

from __future__ import annotations

from collections.abc import Iterable

from harness import machine, workload
from harness.candidates import final_shape
from harness.errors import DoesNotFit
from harness.records import Recipe
from harness.workload import Run

USED = 0.9  # of the memory there is: the rest is for the system and for laying weights out


def require(recipe: Recipe, runs: Iterable[Run], total_bytes: int | None = None) -> None:
    """Raise DoesNotFit unless weights and state of the deepest run fit.

    total_bytes: what a program may use; None is this machine, 0 unknown, which lets all pass.
    """
    total = machine.memory_bytes() if total_bytes is None else total_bytes
    deepest = max(runs, key=lambda run: run.depth + run.tokens)
    needed = workload.build(recipe, final_shape(recipe), deepest).resident_bytes
    if total and needed > USED * total:
        raise DoesNotFit(
            f"{recipe.name} needs {needed / 2**20:.0f} MiB at a context of "
            f"{deepest.depth + deepest.tokens}; this machine has {total / 2**20:.0f} MiB"
        )
