"""Trained on with matrices inside layers rounded in every step, towards its own old predictions.

`qat4` to int4, `qatternary` to -1, 0 and 1. A format that follows stores embedding and head:
`mcsd:nano@qatternary+int8`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from harness.records import Checkpoint, Recipe, Transform
from harness.transforms._tune import watcher

TEACHER_SHARE = 0.5  # of the loss: the float32 weights' own distribution of the next token


@dataclass(frozen=True, slots=True)
class Setting:
    """tokens: of training, unless the recipe says otherwise; rate_share: of the learning rate."""

    form: str
    tokens: int
    rate_share: float


def apply(
    setting: Setting,
    checkpoint: Checkpoint,
    recipe: Recipe,
    progress: Callable[[str, int, int], None],
) -> Checkpoint:
    from harness.training.finetune import finetune  # noqa: PLC0415

    return finetune(
        checkpoint,
        recipe.tuning_tokens or setting.tokens,
        watcher(f"train {setting.form}", progress),
        form=setting.form,
        rate_share=setting.rate_share,
        teacher=checkpoint,
        teacher_share=TEACHER_SHARE,
    )


def _variant(name: str, setting: Setting) -> Transform:
    return Transform(
        name=name,
        summary=f"trained on as {setting.form} inside layers, beside its float32 self",
        reshape=lambda shape: shape,
        apply=partial(apply, setting),
        source="straight-through, Bengio et al. 2013; learned scales, Esser et al. 2020 (LSQ)",
        packs=setting.form,
        tokens=setting.tokens,
    )


SPEC = _variant("qat4", Setting("int4", 262_144, 1 / 3))
VARIANTS = (_variant("qatternary", Setting("ternary", 768_000, 1.0)),)
