"""Matrices inside layers to the nearest level of a few bits, without any data.

A format that follows stores embedding and head: `attention:nano@rtn4+int8`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness import plugins
from harness.records import Checkpoint, Recipe, Transform
from harness.transforms._body import matrices, stored


def apply(
    form: str,
    checkpoint: Checkpoint,
    recipe: Recipe,
    progress: Callable[[str, int, int], None],
) -> Checkpoint:
    pack = plugins.pick(plugins.formats(), form, "format").pack
    names = matrices(checkpoint.shape)
    return stored(checkpoint, form, {name: pack(checkpoint.arrays[name]) for name in names})


def _variant(name: str, form: str) -> Transform:
    return Transform(
        name=name,
        summary=f"matrices inside layers to {form}, each weight to the nearest level",
        reshape=lambda shape: shape,
        apply=partial(apply, form),
        source="round to nearest, as the format itself does",
        packs=form,
    )


SPEC = _variant("rtn4", "int4")
VARIANTS = (_variant("rtnternary", "ternary"),)
