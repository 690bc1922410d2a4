"""Matrices inside layers -> a checkpoint that stores them in a format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from harness import plugins
from harness.candidates import tensors
from harness.errors import BadInput
from harness.records import Array, Checkpoint, Shape

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


def compensating(
    checkpoint: Checkpoint, form: str, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """The matrices inside layers that no format stores yet, rounded with compensation and stored.

    Each for what enters it on training text, once those before it are rounded. It aims at what the
    matrix gave before any was rounded, so that it mends their errors, too.
    Raises BadInput for a format without a grid, and where what enters a matrix cannot be seen.
    """
    from harness.transforms import _calibrate, _rounding  # noqa: PLC0415 - need PyTorch

    spec = plugins.pick(plugins.formats(), form, "format")
    if (grid := spec.grid) is None:
        raise BadInput(f"{form} has no grid of levels to choose from")
    parts: dict[str, Mapping[str, Array]] = {}

    def change(matrix: _calibrate.Matrix) -> Array:
        if matrix.name in checkpoint.formats:
            return matrix.weights
        wanted = _rounding.matched(matrix.weights, matrix.moments, matrix.cross)
        parts[matrix.name] = _rounding.compensated(wanted, matrix.moments, grid)
        rows, columns = matrix.weights.shape
        return spec.unpack(parts[matrix.name], (rows, columns))

    _calibrate.replace_each(checkpoint, change, progress)
    return stored(checkpoint, form, parts)
