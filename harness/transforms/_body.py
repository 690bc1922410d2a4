"""Matrices inside layers -> a checkpoint that stores them in a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness import plugins
from harness.candidates import tensors
from harness.errors import BadInput
from harness.records import Array, Checkpoint, Format, Grid, Shape

Parts = Mapping[str, Mapping[str, Array]]  # tensor -> its arrays, by suffix


def matrices(shape: Shape) -> list[str]:
    """Names of the matrices inside layers that a format stores."""
    return [name for name, t in tensors(shape).items() if t.packed and "." in name]


def stored(checkpoint: Checkpoint, form: str, parts: Parts) -> Checkpoint:
    """The checkpoint with these tensors in that format."""
    arrays = {name: array for name, array in checkpoint.arrays.items() if name not in parts}
    for name, by_suffix in parts.items():
        arrays |= {f"{name}.{key}" if key else name: part for key, part in by_suffix.items()}
    return replace(
        checkpoint, arrays=arrays, formats={**checkpoint.formats, **dict.fromkeys(parts, form)}
    )


def grid_of(form: str) -> tuple[Format, Grid]:
    """A format and its grid; raises BadInput for one without."""
    spec = plugins.pick(plugins.formats(), form, "format")
    if spec.grid is None:
        raise BadInput(f"{form} has no grid of levels to choose from")
    return spec, spec.grid
