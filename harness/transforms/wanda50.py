"""Half of the weights inside layers set to zero, the others trained on, and stored without zeros.

`wanda50` keeps in each row what is largest times the size of what it multiplies, `magnitude50`
what is largest, `two4` as `wanda50` but two of any four columns. A format that follows stores
embedding and head: `attention:nano@wanda50+int8`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from harness import plugins
from harness.records import Array, Checkpoint, Recipe, Transform
from harness.transforms._body import matrices, stored
from harness.transforms._tune import watcher

FORM = "sparse50int8"
TOKENS = 262_144  # of tuning
TEACHER_SHARE = 0.5  # of the loss: the whole model's distribution of the next token


def apply(
    together: int,
    aware: bool,
    checkpoint: Checkpoint,
    recipe: Recipe,
    progress: Callable[[str, int, int], None],
) -> Checkpoint:
    """together: so many columns of a row keep half of them, 0 for all; aware: of activations."""
    from harness.training.finetune import finetune  # noqa: PLC0415

    tuned = finetune(
        masked(together, aware, checkpoint, progress),
        recipe.tuning_tokens or TOKENS,
        watcher("tune what is left", progress),
        keep_zeros=True,
        teacher=checkpoint,
        teacher_share=TEACHER_SHARE,
    )
    pack = plugins.formats()[FORM].pack
    names = matrices(checkpoint.shape)
    return stored(tuned, FORM, {name: pack(tuned.arrays[name]) for name in names})


def masked(
    together: int, aware: bool, checkpoint: Checkpoint, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """Before tuning."""
    from harness.transforms import _calibrate  # noqa: PLC0415

    arrays = dict(checkpoint.arrays)

    def change(matrix: _calibrate.Matrix) -> Array:
        size = np.sqrt(np.diag(matrix.moments)) if aware else 1.0
        kept = matrix.weights * halved(np.abs(matrix.weights) * size, together)
        arrays[matrix.name] = kept.astype(np.float32)
        return kept

    _calibrate.replace_each(checkpoint, change, progress)
    return replace(checkpoint, arrays=arrays)


def halved(scores: Array, together: int = 0) -> Array:
    """Where the larger half of each row is, or of every `together` columns of it; bool."""
    rows, columns = scores.shape
    width = together or columns
    padded = np.pad(scores, ((0, 0), (0, -columns % width)), constant_values=-1.0)
    groups = padded.reshape(rows, -1, width)
    order = np.argsort(-groups, axis=-1, kind="stable")
    kept = np.zeros(groups.shape, bool)
    np.put_along_axis(kept, order[..., : -(-width // 2)], True, axis=-1)
    found: Array = kept.reshape(rows, -1)[:, :columns]
    return found


def _variant(name: str, how: str, together: int, aware: bool, source: str) -> Transform:
    return Transform(
        name=name,
        summary=f"half of the weights inside layers kept, {how}, then tuned",
        reshape=lambda shape: shape,
        apply=partial(apply, together, aware),
        source=source,
        packs=FORM,
        tokens=TOKENS,
    )


WANDA = "Sun et al. 2023, Wanda"
SPEC = _variant("wanda50", "by size times that of what enters", 0, True, WANDA)
VARIANTS = (
    _variant("magnitude50", "the largest of each row", 0, False, "Han et al. 2015"),
    _variant("two4", "two of any four columns", 4, True, f"{WANDA}; Mishra et al. 2021, 2:4"),
)
