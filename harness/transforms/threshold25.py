"""Groups of ffn neurons skipped where their gates are nearly shut: a threshold, and no training.

A layer's threshold lets the wanted share of groups run on training text. `threshold50` and
`threshold10` keep another share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from harness.errors import BadInput
from harness.ffns import _groups
from harness.records import Array, Checkpoint, Recipe, Shape, Transform
from harness.transforms._tune import inputs_of


def apply(
    share: float,
    checkpoint: Checkpoint,
    recipe: Recipe,
    progress: Callable[[str, int, int], None],
) -> Checkpoint:
    """The same weights with a threshold in each layer. Raises BadInput for an ffn that is not
    dense."""
    shape = reshape(share, checkpoint.shape)
    arrays = dict(checkpoint.arrays)
    for layer, x in enumerate(inputs_of(checkpoint, "ffn")):
        at = f"layers.{layer}.ffn"
        largest = _largest(x, arrays[f"{at}.gate"], shape.group)
        threshold = np.quantile(largest, 1 - share, keepdims=True).reshape(1)
        arrays[f"{at}.threshold"] = threshold.astype(np.float32)
    return replace(checkpoint, shape=shape, arrays=arrays)


def reshape(share: float, shape: Shape) -> Shape:
    """Raises BadInput for an ffn that is not dense, or does not split into groups."""
    if shape.ffn != "dense":
        raise BadInput(f"thresholds skip groups of a dense ffn; this one is {shape.ffn}")
    chosen = max(1, round(share * _groups.count(shape)))
    return replace(shape, ffn="threshold", chosen=chosen)


def _largest(x: Array, gate: Array, group: int) -> Array:
    """x (n,width) -> the largest activated gate of each group of each vector, (n,groups)."""
    pre = x @ gate.T
    found: Array = np.abs(pre / (1 + np.exp(-pre))).reshape(len(x), -1, group).max(-1)
    return found


def _transform(percent: int) -> Transform:
    return Transform(
        name=f"threshold{percent}",
        summary=f"ffn groups with weak gates skipped, so that {percent} % run; not trained",
        reshape=partial(reshape, percent / 100),
        apply=partial(apply, percent / 100),
        source="Lee et al. 2024, CATS, by groups of neurons",
    )


SPEC = _transform(25)
VARIANTS = (_transform(50), _transform(10))
