"""Half of the ffn neurons removed, the rest refitted to stand in for them and tuned.

Neurons go one by one: always the one whose work the others can take over best, by least squares on
what enters `down` for training text. Removing neuron j from output weights D (d,h) with moments H
costs |D_j|^2 / (H^-1)_jj, and D changes by the multiple of row j of H^-1 that makes D_j zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.errors import BadInput
from harness.records import Array, Checkpoint, Recipe, Shape, Transform
from harness.transforms._rounding import damp, matched
from harness.transforms._tune import watcher

MULTIPLE = 8  # half of a width is rounded up to one of it
TOKENS = 384_000  # of tuning: a quarter of what the well-known set-up trains on
RATE_SHARE = 2 / 3  # of the learning rate first trained with
TEACHER_SHARE = 0.5  # of the loss: the whole model's distribution of the next token


def apply(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """Layer by layer, each for what the layers before it, slimmed already, hand on.

    Raises BadInput for an ffn that is not dense.
    """
    from harness.training.finetune import finetune  # noqa: PLC0415

    return finetune(
        slimmed(checkpoint, progress),
        recipe.tuning_tokens or TOKENS,
        watcher("tune", progress),
        rate_share=RATE_SHARE,
        teacher=checkpoint,
        teacher_share=TEACHER_SHARE,
    )


def slimmed(checkpoint: Checkpoint, progress: Callable[[str, int, int], None]) -> Checkpoint:
    """Before tuning. Raises BadInput for an ffn that is not dense."""
    from harness.transforms import _calibrate  # noqa: PLC0415

    if checkpoint.shape.ffn != "dense":
        raise BadInput(
            f"slim50 removes neurons of a dense ffn; {checkpoint.recipe.name} has "
            f"{checkpoint.shape.ffn}"
        )
    keep, arrays = reshape(checkpoint.shape).hidden, dict(checkpoint.arrays)

    def change(matrix: _calibrate.Matrix) -> Array:
        at, _, name = matrix.name.rpartition(".")
        if name != "down":
            return matrix.weights
        wanted = matched(matrix.weights, matrix.moments, matrix.cross)
        kept, refitted = eliminated(wanted, matrix.moments, keep)
        for part in ("gate", "up"):
            arrays[f"{at}.{part}"] = arrays[f"{at}.{part}"][kept]
        arrays[matrix.name] = refitted.astype(np.float32)
        whole = np.zeros_like(matrix.weights)
        whole[:, kept] = refitted
        return whole

    _calibrate.replace_each(checkpoint, change, progress)
    return replace(checkpoint, shape=reshape(checkpoint.shape), arrays=arrays)


def reshape(shape: Shape) -> Shape:
    return replace(shape, hidden=-(-shape.hidden // (2 * MULTIPLE)) * MULTIPLE)


def eliminated(weights: Array, moments: Array, keep: int) -> tuple[Array, Array]:
    """The `keep` columns of weights (d,h) that stay, in order, and what they become (d,keep)."""
    left = np.arange(weights.shape[1])
    inverse, refitted = np.linalg.inv(damp(moments)), weights.astype(np.float64)
    while left.size > keep:
        j = int((np.square(refitted).sum(0) / np.diag(inverse)).argmin())
        row = inverse[j] / inverse[j, j]
        refitted = np.delete(refitted - np.outer(refitted[:, j], row), j, 1)
        inverse = inverse - np.outer(inverse[:, j], row)
        inverse = np.delete(np.delete(inverse, j, 0), j, 1)
        left = np.delete(left, j)
    return left, refitted


SPEC = Transform(
    name="slim50",
    summary="half of the ffn neurons removed and the rest refitted, then tuned beside the whole",
    reshape=reshape,
    apply=apply,
    source="Hassibi & Stork 1993, optimal brain surgeon, by column as Kurtic et al. 2023 (ZipLM)",
    tokens=TOKENS,
)
