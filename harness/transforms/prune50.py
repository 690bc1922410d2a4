"""Half of the ffn neurons really removed, chosen on data, then a short fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.errors import BadInput
from harness.records import Array, Checkpoint, Recipe, Shape, Transform
from harness.transforms._tune import FINETUNING_TOKENS, inputs_of, tuned

MULTIPLE = 32  # widths stay multiples of what kernels and groups work in


def apply(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """Keep the neurons with the largest mean activation^2 times the norm^2 of their output column.

    Raises BadInput for an ffn that is not dense.
    """
    shape = checkpoint.shape
    if shape.ffn != "dense":
        raise BadInput(f"prune50 removes neurons of a dense ffn; {recipe.name} has {shape.ffn}")
    keep = reshape(shape).hidden
    arrays = dict(checkpoint.arrays)
    for layer, x in enumerate(inputs_of(checkpoint, "ffn")):
        at = f"layers.{layer}.ffn"
        gate, up, down = (arrays[f"{at}.{name}"] for name in ("gate", "up", "down"))
        best = np.sort(np.argsort(-_importance(x, gate, up, down), kind="stable")[:keep])
        arrays |= {f"{at}.gate": gate[best], f"{at}.up": up[best], f"{at}.down": down[:, best]}
    smaller = replace(checkpoint, shape=reshape(shape), arrays=arrays)
    return tuned(smaller, recipe, progress)


def reshape(shape: Shape) -> Shape:
    return replace(shape, hidden=max(MULTIPLE, shape.hidden // 2 // MULTIPLE * MULTIPLE))


def _importance(x: Array, gate: Array, up: Array, down: Array) -> Array:
    """x (n,width) -> (hidden,)."""
    pre = x @ gate.T
    hidden = pre / (1 + np.exp(-pre)) * (x @ up.T)
    scores: Array = np.square(hidden).mean(0) * np.square(down).sum(0)
    return scores


SPEC = Transform(
    name="prune50",
    summary="half of the ffn neurons, or a little more, removed on data, then fine-tuned",
    reshape=reshape,
    apply=apply,
    source="structured pruning by activation and weight norm, as Sun et al. 2023 (Wanda) by column",
    tokens=FINETUNING_TOKENS,
)
