"""Recipe -> checkpoint: found, or trained, transformed and packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness import candidates, packing, plugins, public, steps
from harness import checkpoint as checkpoints
from harness.engines.numba import random
from harness.records import Array, Checkpoint, Recipe

Progress = Callable[[str, int, int], None]  # what is done, steps done, steps in all


def make(
    recipe: Recipe,
    progress: Progress = lambda stage, done, total: None,
    *,
    fresh: bool = False,
) -> Checkpoint:
    """The candidate's checkpoint. What is found is loaded; what had to be made is saved.

    A recipe without a training budget gets random weights, which are never saved; public weights
    are saved where a format packs them. fresh: make it even if it is there (what it is made from
    is still found).
    """
    if recipe.tokens == 0 and recipe.origin is None:
        return random.checkpoint(recipe)
    if recipe.steps and recipe.steps[-1] in steps.CACHES:  # the same weights
        checkpoint = replace(make(_before(recipe), progress, fresh=fresh), recipe=recipe)
    elif recipe.origin is not None and not recipe.steps:
        checkpoint = public.load(recipe, recipe.origin)
    elif not fresh and (path := checkpoints.find(recipe)):
        checkpoint = replace(checkpoints.load(path), recipe=recipe)
    else:
        checkpoint = _made(recipe, progress)
        checkpoints.save(checkpoint, checkpoints.path_of(recipe))
    cache = steps.cache_of(recipe.steps)
    return replace(checkpoint, shape=replace(checkpoint.shape, cache=cache))


def pack(checkpoint: Checkpoint, form: str) -> Checkpoint:
    """Every matrix stored in one weight format, but for those that a transform stored in another.

    Norms, decays and selectors stay float32.
    """
    spec = plugins.pick(plugins.formats(), form, "format")
    arrays: dict[str, Array] = {}
    formats = dict(checkpoint.formats)
    for name, tensor in candidates.tensors(checkpoint.shape).items():
        if name in formats or not tensor.packed:
            parts = checkpoints.stored(checkpoint, name, tensor)
            arrays |= {f"{name}.{key}" if key else name: part for key, part in parts.items()}
            continue
        parts = packing.pack(spec, tensor.shape, checkpoint.arrays[name].__getitem__)
        arrays |= {f"{name}.{key}" if key else name: part for key, part in parts.items()}
        if form != "f32":
            formats[name] = form
    return replace(checkpoint, arrays=arrays, formats=formats)


def _before(recipe: Recipe) -> Recipe:
    """The recipe without its last step."""
    base, before = candidates.base(recipe), recipe.steps[:-1]
    if not before:
        return base
    name = f"{base.name}@{'+'.join(before)}"
    return steps.settled(replace(recipe, name=name, steps=before))


def _made(recipe: Recipe, progress: Progress) -> Checkpoint:
    if recipe.origin is not None:
        return public.load(recipe, recipe.origin, progress)
    if not recipe.steps:
        from harness.training.train import train  # noqa: PLC0415 - needs PyTorch

        return train(recipe, lambda now: progress(f"loss {now.loss:.3f}", now.step, now.steps))
    step = recipe.steps[-1]
    checkpoint = make(_before(recipe), progress)
    if step in plugins.formats():
        made = pack(checkpoint, step)
    else:
        transform = plugins.pick(plugins.transforms(), step, "transform")
        made = transform.apply(checkpoint, recipe, progress)
    return replace(made, recipe=recipe)
