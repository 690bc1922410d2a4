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
    """Raise DoesNotFit unless what the run that needs most keeps in memory fits.

    total_bytes: what a program may use; None is this machine, 0 unknown, which lets all pass.
    """
    total = machine.memory_bytes() if total_bytes is None else total_bytes
    shape = final_shape(recipe)
    needs = [(workload.build(recipe, shape, run).resident_bytes, run) for run in runs]
    needed, most = max(needs, key=lambda pair: pair[0])
    if total and needed > USED * total:
        what = "to train" if most.phase == "train" else "at a context of"
        raise DoesNotFit(
            f"{recipe.name} needs {needed / 2**20:.0f} MiB {what} {most.depth + most.tokens} "
            f"tokens; this machine has {total / 2**20:.0f} MiB"
        )
