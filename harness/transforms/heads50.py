"""Half of the attention heads really removed, chosen on data, then a short fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.errors import BadInput
from harness.records import Array, Checkpoint, Recipe, Shape, Transform
from harness.transforms._tune import FINETUNING_TOKENS, inputs_of, tuned


def apply(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """Keep the key-value heads, with their query heads, that contribute most to the residual.

    Raises BadInput where a layer has no attention or one key-value head.
    """
    shape = checkpoint.shape
    if set(shape.mixers) != {"attention"}:
        raise BadInput(f"heads50 removes attention heads; {recipe.name} has none in some layer")
    if shape.kv_heads < 2:
        raise BadInput(f"{recipe.name} has one key-value head; there is none to remove")
    smaller = reshape(shape)
    keep, each, w = smaller.kv_heads, shape.heads // shape.kv_heads, shape.head_width
    arrays = dict(checkpoint.arrays)
    for layer, x in enumerate(inputs_of(checkpoint, "mixer")):
        at = f"layers.{layer}.mixer"
        scores = _contributions(checkpoint, layer, x)
        best = np.sort(np.argsort(-scores, kind="stable")[:keep])
        keys = np.concatenate([np.arange(g * w, (g + 1) * w) for g in best])
        queries = np.concatenate([np.arange(g * each * w, (g + 1) * each * w) for g in best])
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            arrays[f"{at}.{name}"] = arrays[f"{at}.{name}"][rows]
        arrays[f"{at}.o"] = np.ascontiguousarray(arrays[f"{at}.o"][:, queries])
    return tuned(replace(checkpoint, shape=smaller, arrays=arrays), recipe, progress)


def reshape(shape: Shape) -> Shape:
    """Raises BadInput where a layer has no attention."""
    if set(shape.mixers) != {"attention"}:
        raise BadInput(f"heads50 removes attention heads; {', '.join(set(shape.mixers))} has none")
    keep = max(1, shape.kv_heads // 2)
    return replace(shape, heads=keep * (shape.heads // shape.kv_heads), kv_heads=keep)


def _contributions(checkpoint: Checkpoint, layer: int, x: Array) -> Array:
    """x (b,n,width) -> mean square of what each key-value head adds, (kv_heads,)."""
    import torch  # noqa: PLC0415

    from harness import plugins  # noqa: PLC0415

    shape, at = checkpoint.shape, f"layers.{layer}.mixer"
    part = shape.heads // shape.kv_heads * shape.head_width
    tensors = {name: checkpoint.arrays[f"{at}.{name}"] for name in "qkvo"}
    module = plugins.half(plugins.mixers()["attention"], "reference").build(shape)
    found = np.zeros(shape.kv_heads)
    for head in range(shape.kv_heads):
        alone = np.zeros_like(tensors["o"])
        alone[:, head * part : (head + 1) * part] = tensors["o"][:, head * part : (head + 1) * part]
        module.load({**tensors, "o": alone})
        with torch.no_grad():
            found[head] = module(torch.from_numpy(x)).square().mean().item()
    return found


SPEC = Transform(
    name="heads50",
    summary="half of the attention heads removed by their contribution on data, then fine-tuned",
    reshape=reshape,
    apply=apply,
    source="head pruning, Michel et al. 2019, by contribution instead of gradient",
    tokens=FINETUNING_TOKENS,
)
