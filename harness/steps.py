"""The steps of a candidate -> their order, and what they make of weights and caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Literal

from harness import plugins, sizes
from harness.errors import BadInput, UnknownName
from harness.records import Recipe

CACHES: dict[str, Literal["f32", "f16", "int8"]] = {
    "kvf32": "f32",
    "kvf16": "f16",
    "kvint8": "int8",
}
# Settings of a recipe that only some steps read.
TEACHING = ("teacher", "teacher_tokens", "teacher_share", "temperature")
TUNING = ("tuning_tokens",)


def check(name: str, steps: Sequence[str], mixer: str) -> None:
    """Transforms in any order, at most one that packs, at most one format, and one of the cache."""
    every = plugins.transforms()
    packing = [step for step in every if every[step].packs]
    kinds = (every.keys() - packing, packing, plugins.formats(), CACHES)
    known = sorted(step for kind in kinds for step in kind)
    order = []
    for step in steps:
        if step not in known:
            raise UnknownName(f"{name!r}: unknown step {step!r}; known: {', '.join(known)}")
        order.append(next(i for i, kind in enumerate(kinds) if step in kind))
    if order != sorted(order) or any(order.count(kind) > 1 for kind in (1, 2, 3)):
        raise BadInput(
            f"{name!r}: steps come in the order of transforms, one that stores the layers itself "
            f"({', '.join(packing)}), one format of weights, one of the key-value cache, "
            f"e.g. attention:nano@prune50+rtn4+int8+kvint8"
        )
    keeps = mixer in sizes.HYBRIDS or plugins.mixers()[mixer].folder == "attention"
    if 3 in order and not keeps:
        raise BadInput(
            f"{name!r}: {steps[-1]!r} says how attention keeps keys, and {mixer!r} has none"
        )
    if len(set(steps)) != len(steps):
        raise BadInput(f"{name!r} repeats a step")


def settled(recipe: Recipe) -> Recipe:
    """The recipe without settings that none of its steps reads, so that equals have one hash."""
    read = {*(TEACHING if taught(recipe.steps) else ()), *(TUNING if tuned(recipe.steps) else ())}
    unread = {*TEACHING, *TUNING} - read
    plain: dict[str, Any] = {f.name: f.default for f in fields(recipe) if f.name in unread}
    return replace(recipe, **plain)


def taught(steps: Sequence[str]) -> bool:
    """Whether one of the steps learns from a teacher."""
    return any(t.taught for step, t in plugins.transforms().items() if step in steps)


def tuned(steps: Sequence[str]) -> bool:
    """Whether one of the steps trains on, within a budget of its own."""
    return any(t.tokens for step, t in plugins.transforms().items() if step in steps)


def formats(steps: Sequence[str]) -> tuple[str, str]:
    """The weight formats of the matrices inside layers, and of the others: embedding and head."""
    others = next((step for step in steps if step in plugins.formats()), "f32")
    known = map(plugins.transforms().get, steps)
    return next((step.packs for step in known if step and step.packs), others), others


def cache_of(steps: Sequence[str]) -> Literal["f32", "f16", "int8"]:
    """How attention keeps keys and values: as a step says, else float16 beside packed weights."""
    named = [CACHES[step] for step in steps if step in CACHES]
    packed = any(step in plugins.formats() and step != "f32" for step in steps)
    return named[-1] if named else "f16" if packed else "f32"
