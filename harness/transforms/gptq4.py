"""Matrices inside layers to int4, what one column's rounding gets wrong made up for by the others.

A format that follows stores embedding and head: `mcsd:nano@gptq4+int8`.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.records import Checkpoint, Recipe, Transform
from harness.transforms._body import compensating

FORM = "int4"


def apply(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """Raises BadInput where what enters a matrix cannot be seen."""
    return compensating(checkpoint, FORM, progress)


SPEC = Transform(
    name="gptq4",
    summary="matrices inside layers to int4, with errors compensated on training text",
    reshape=lambda shape: shape,
    apply=apply,
    source="Frantar et al. 2022, GPTQ; target of the unrounded model, Li et al. 2025, GPTAQ",
    packs=FORM,
)
