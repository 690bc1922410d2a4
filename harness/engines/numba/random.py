"""A recipe -> a checkpoint of random weights: right sizes and speed, no quality."""

from __future__ import annotations

import numpy as np

from harness import packing, plugins
from harness.candidates import final_shape, tensors
from harness.mixers.attention.spec import slopes
from harness.records import Array, Checkpoint, Format, Recipe, Tensor
from harness.steps import formats as formats_of


def checkpoint(recipe: Recipe) -> Checkpoint:
    """Normal weights of deviation 1/sqrt(columns), gains 1, decays and slopes as published.

    Layers share one array per tensor and shape, and the rows of a large one repeat, so that a
    model of billions is made in seconds; the engine gives each layer its own copy.
    """
    rng = np.random.default_rng(recipe.seed)
    body, other = formats_of(recipe.steps)
    arrays: dict[str, Array] = {}
    formats: dict[str, str] = {}
    made: dict[tuple[str, str, tuple[int, ...]], dict[str, Array]] = {}
    shape = final_shape(recipe)
    for name, tensor in tensors(shape).items():
        form = body if "." in name else other
        key = (form, tensor.name, tensor.shape)
        if key not in made:
            if tensor.packed:
                made[key] = _matrix(tensor, plugins.formats()[form], rng)
            else:
                made[key] = {"": _values(tensor.name, tensor.shape, rng)}
        arrays |= {f"{name}.{k}" if k else name: a for k, a in made[key].items()}
        if tensor.packed and form != "f32":
            formats[name] = form
    return Checkpoint(recipe=recipe, shape=shape, arrays=arrays, formats=formats)


def _matrix(tensor: Tensor, form: Format, rng: np.random.Generator) -> dict[str, Array]:
    rows, columns = tensor.shape
    drawn = min(rows, max(1, packing.VALUES // columns)) if form.by_rows else rows
    packed = form.pack(_values(tensor.name, (drawn, columns), rng))
    if drawn == rows:
        return dict(packed)
    return {key: np.resize(array, (rows, *array.shape[1:])) for key, array in packed.items()}


def _values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    values: Array
    if "norm" in name or name == "gain":
        values = np.ones(shape)
    elif name == "slopes":
        values = slopes(shape[0])
    elif name == "slope":  # exp(-beta), MCSD eq. 2
        values = np.exp(-(2.0 ** (-8.0 / shape[0] * (np.arange(shape[0]) + 1))))
    elif name == "decay":  # MCSD eq. 8
        values = 1 - 2.0 ** (-5.0 - np.arange(shape[0]))
    elif name in ("selector_bias", "threshold"):
        values = np.zeros(shape)
    else:
        values = rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
    return values.astype(np.float32, copy=False)
