"""Columns that loud values enter made larger, and those values as much smaller where they arise.

The model computes what it did, and rounding that follows errs less where it matters:
`attention:nano@awq+rtn4+int8`. Nothing is added to a step: the factors go into the gain of a norm
and into the rows of the matrix before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from harness import plugins
from harness.records import Array, Checkpoint, Recipe, Shape, Transform
from harness.transforms._body import matrices

FORM = "int4"
POWERS = np.linspace(0, 1, 11)  # of the root mean square of what enters a column
# mixer's folder or ffn -> a matrix, and what makes the values that enter it, feature by feature
MADE_BY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "attention": {"o": ("v",)},
    "mcsd": {"o": ("u", "gain")},
    "dense": {"down": ("up",)},
}


def apply(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """Raises BadInput where what enters a matrix cannot be seen."""
    from harness.transforms import _calibrate  # noqa: PLC0415

    moments: dict[str, Array] = {}

    def watch(matrix: _calibrate.Matrix) -> Array:
        moments[matrix.name] = matrix.moments
        return matrix.weights

    _calibrate.replace_each(checkpoint, watch, progress)
    arrays = {name: array.copy() for name, array in checkpoint.arrays.items()}
    for entered, makers in _places(checkpoint.shape):
        columns = arrays[entered[0]].shape[1]
        if any(m not in arrays or len(arrays[m]) != columns for m in makers):
            continue  # a value head that serves several of the query, or projections by channel
        factors = factors_of([arrays[n] for n in entered], moments[entered[0]])
        for name in entered:
            arrays[name] = (arrays[name] * factors).astype(np.float32)
        for name in makers:
            down = factors if arrays[name].ndim == 1 else factors[:, None]
            arrays[name] = (arrays[name] / down).astype(np.float32)
    return replace(checkpoint, arrays=arrays)


def factors_of(weights: list[Array], moments: Array) -> Array:
    """What to multiply columns by, (k,): the power of their loudness that rounding errs least with.

    weights: matrices (m,k) that the same values enter, with these moments (k,k)
    """
    form, loudness = plugins.formats()[FORM], np.sqrt(np.diag(moments)) + 1e-12
    loudness = np.exp(np.log(loudness) - np.log(loudness).mean())
    best, least = np.ones(len(moments)), np.inf
    for power in POWERS:
        factors, error = loudness**power, 0.0
        for w in weights:
            scaled = (w * factors).astype(np.float32)
            off = form.unpack(form.pack(scaled), (w.shape[0], w.shape[1])) / factors - w
            error += float(np.einsum("mk,ml,kl->", off, off, moments, optimize=True))
        if error < least:
            best, least = factors, error
    return best


def _places(shape: Shape) -> list[tuple[list[str], list[str]]]:
    """Matrices that the same values enter, and the tensors whose rows or gains make those.

    Of mixers and ffns that MADE_BY knows: others may read a norm where no matrix shows it.
    """
    found = []
    for layer, name in enumerate(shape.mixers):
        folder = plugins.pick(plugins.mixers(), name, "mixer").folder
        for half, kind in (("mixer", folder), ("ffn", shape.ffn)):
            at, made = f"layers.{layer}.{half}", MADE_BY.get(kind, {})
            mine = [n.removeprefix(f"{at}.") for n in matrices(shape) if n.startswith(f"{at}.")]
            if made:
                found.append(([f"{at}.{n}" for n in mine if n not in made], [f"{at}_norm"]))
                found += [
                    ([f"{at}.{n}"], [f"{at}.{m}" for m in makers])
                    for n, makers in made.items()
                    if n in mine
                ]
    return found


SPEC = Transform(
    name="awq",
    summary="weights that loud values enter made larger before rounding; the model stays the same",
    reshape=lambda shape: shape,
    apply=apply,
    source="Lin et al. 2023, AWQ",
)
