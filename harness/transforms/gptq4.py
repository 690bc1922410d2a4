"""Matrices inside layers to int4, what one column's rounding gets wrong made up for by the others.

A format that follows stores embedding and head: `mcsd:nano@gptq4+int8`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.records import Array, Checkpoint, Recipe, Transform
from harness.transforms._body import grid_of, stored

FORM = "int4"


def apply(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """Each matrix for what enters it on training text, once those before it are rounded.

    It aims at what the matrix gave before any was rounded, so that it mends their errors, too.
    Raises BadInput where what enters a matrix cannot be seen.
    """
    from harness.transforms import _calibrate, _rounding  # noqa: PLC0415 - need PyTorch, SciPy

    form, grid = grid_of(FORM)
    parts: dict[str, Mapping[str, Array]] = {}

    def change(matrix: _calibrate.Matrix) -> Array:
        wanted = _rounding.matched(matrix.weights, matrix.moments, matrix.cross)
        parts[matrix.name] = _rounding.compensated(wanted, matrix.moments, grid)
        rows, columns = matrix.weights.shape
        return form.unpack(parts[matrix.name], (rows, columns))

    _calibrate.replace_each(checkpoint, change, progress)
    return stored(checkpoint, FORM, parts)


SPEC = Transform(
    name="gptq4",
    summary="matrices inside layers to int4, with errors compensated on training text",
    reshape=lambda shape: shape,
    apply=apply,
    source="Frantar et al. 2022, GPTQ; target of the unrounded model, Li et al. 2025, GPTAQ",
    packs=FORM,
)
