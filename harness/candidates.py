"""A short name, `MIXER[+FFN]:SIZE[@STEP[+STEP]]`, -> the recipe it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harness import plugins, sizes
from harness import steps as steps_of
from harness.errors import BadInput
from harness.folders import config, origin
from harness.records import Recipe, Shape, Tensor

SELECTIVE_ACTIVE = 0.5  # the budget a selective ffn aims at unless told otherwise
NAME = re.compile(
    r"(?P<mixer>[a-z0-9-]+)(\+(?P<ffn>[a-z0-9]+))?:(?P<size>[a-z0-9.-]+)"
    r"(@(?P<steps>[a-z0-9]+(\+[a-z0-9]+)*))?"
)


def is_folder(name: str) -> bool:
    """Whether a candidate is given by a path: a short name has no separator."""
    return "/" in name or "\\" in name


def stand_in(name: str) -> str:
    """What a public model has that a candidate of its size does without; "" where nothing is."""
    match = NAME.fullmatch(name)
    return str(sizes.read(match["size"]).get("stand_in", "")) if match else ""


def doubts(name: str) -> tuple[str, ...]:
    """What a row of the candidate should say beside its numbers."""
    text = stand_in(name)
    return (f"stand-in: {text}",) if text else ()


def parse(
    name: str,
    *,
    corpus: str = "pydocs",
    tokens: int | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe of a short name or folder; `tokens` overrides the size's training budget.

    changes: fields of its Recipe or Shape to set otherwise, e.g. {"context": 256, "channels": 16}
    Raises BadInput when the name is malformed, UnknownName when a part of it is not known,
    BadCheckpoint when the folder's model cannot run here.
    """
    recipe = _named(name, corpus, tokens, seed)
    return changed(recipe, changes) if changes else recipe


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with fields of its own or of its shape set otherwise.

    Raises BadInput for a field there is none of, and for a value that makes no shape.
    """
    own = {f.name for f in fields(Recipe)} - {"name", "shape", "steps", "origin"}
    shape = {f.name for f in fields(Shape)}
    if unknown := sorted(set(changes) - own - shape):
        known = ", ".join(sorted(own | shape))
        raise BadInput(f"{recipe.name}: there is no {unknown[0]!r} to set; known: {known}")
    try:
        made = replace(recipe.shape, **{k: v for k, v in changes.items() if k in shape})
        recipe = replace(recipe, shape=made, **{k: v for k, v in changes.items() if k in own})
    except (TypeError, ValueError) as error:
        raise BadInput(f"{recipe.name}: {error}") from None
    return steps_of.settled(recipe)


def _named(name: str, corpus: str, tokens: int | None, seed: int) -> Recipe:
    if is_folder(name):
        return _public(name, corpus)
    if seed < 0 or (tokens is not None and tokens < 0):
        raise BadInput(f"seed and tokens cannot be negative: {seed}, {tokens}")
    match = NAME.fullmatch(name)
    if match is None:
        raise BadInput(
            f"candidate {name!r} is not of the form MIXER[+FFN]:SIZE[@STEP[+STEP]], "
            f"e.g. attention:nano or mcsd+selective:nano@int8"
        )
    ffn, size = match["ffn"] or "dense", match["size"]
    if match["mixer"] not in sizes.HYBRIDS:
        plugins.pick(plugins.mixers(), match["mixer"], "mixer")
    plugins.pick(plugins.ffns(), ffn, "ffn")
    steps = tuple(match["steps"].split("+")) if match["steps"] else ()
    steps_of.check(name, steps, match["mixer"])
    raw = sizes.read(size)
    vocabulary = raw["vocabulary"]
    if raw["trained"]:
        spec = plugins.corpora().get(corpus)  # a corpus of nobody's is told where it is used
        vocabulary = spec.vocabulary if spec else vocabulary
    stack = sizes.stack(match["mixer"], raw["layers"])
    budget = (raw["tokens"] if tokens is None else tokens) if raw["trained"] else 0
    return Recipe(
        name=name,
        shape=replace(sizes.shape(raw, stack, ffn), vocabulary=vocabulary),
        steps=steps,
        corpus=corpus,
        tokens=budget,
        batch=raw.get("batch", 1),
        seed=seed,
        learning_rate=raw.get("learning_rate", 0.0),
        active=SELECTIVE_ACTIVE if ffn == "selective" else 1.0,
        teacher=_teacher(match["mixer"], size) if steps_of.taught(steps) else None,
    )


def base(recipe: Recipe) -> Recipe:
    """The recipe without its steps: what is trained before anything is compressed."""
    name = recipe.name.rpartition("@")[0] if recipe.steps else recipe.name
    return steps_of.settled(replace(recipe, name=name, steps=()))


def teacher(recipe: Recipe) -> Recipe | None:
    """The recipe of the teacher that a step of the recipe learns from; None where there is none."""
    if recipe.teacher is None:
        return None
    return parse(
        recipe.teacher,
        corpus=recipe.corpus,
        tokens=recipe.teacher_tokens,
        changes={"context": recipe.shape.context, "batch": recipe.batch},
    )


def final_shape(recipe: Recipe) -> Shape:
    """The recipe's shape after its steps."""
    shape = recipe.shape
    for step in recipe.steps:
        if transform := plugins.transforms().get(step):
            shape = transform.reshape(shape)
    return replace(shape, cache=steps_of.cache_of(recipe.steps))


def stored(recipe: Recipe, shape: Shape) -> dict[str, str]:
    """The weight format of every matrix, as far as the recipe alone tells."""
    inside, others = steps_of.formats(recipe.steps)
    return {n: inside if "." in n else others for n, t in tensors(shape).items() if t.packed}


def tensors(shape: Shape) -> dict[str, Tensor]:
    """Every parameter of a stack by canonical name, in the order of use."""
    found = {"embedding": Tensor("embedding", (shape.vocabulary, shape.width))}
    ffn = plugins.pick(plugins.ffns(), shape.ffn, "ffn")
    for layer, name in enumerate(shape.mixers):
        mixer = plugins.pick(plugins.mixers(), name, "mixer")
        at = f"layers.{layer}"
        found[f"{at}.mixer_norm"] = Tensor("mixer_norm", (shape.width,), packed=False)
        found |= {f"{at}.mixer.{t.name}": t for t in mixer.tensors(shape)}
        found[f"{at}.ffn_norm"] = Tensor("ffn_norm", (shape.width,), packed=False)
        found |= {f"{at}.ffn.{t.name}": t for t in ffn.tensors(shape)}
    found["norm"] = Tensor("norm", (shape.width,), packed=False)
    if not shape.tied:
        found["head"] = Tensor("head", (shape.vocabulary, shape.width))
    return found


def parameters(shape: Shape) -> int:
    total = 0
    for tensor in tensors(shape).values():
        count = 1
        for extent in tensor.shape:
            count *= extent
        total += count
    return total


def _public(name: str, corpus: str) -> Recipe:
    """The recipe of PATH[@STEP[+STEP]]: a folder of public weights, in formats.

    Raises BadInput, UnknownName, and BadCheckpoint where the folder's model cannot run here.
    """
    path, steps = Path(name), tuple[str, ...]()
    if not path.is_dir():
        head, _, tail = name.rpartition("@")
        path, steps = Path(head), tuple(tail.split("+"))
        if not head or not path.is_dir():
            raise BadInput(
                f"candidate {name!r}: there is no such folder; a candidate is a folder of weights "
                f"or MIXER[+FFN]:SIZE[@STEP[+STEP]], e.g. attention:nano"
            )
        if tuned := [step for step in steps if step in plugins.transforms()]:
            raise BadInput(f"{name!r}: {tuned[0]} tunes on bytes; public weights take a format")
        steps_of.check(name, steps, "attention")
    folder = path.resolve()
    shape = config.shape(config.read(folder), str(path))
    return Recipe(
        name=f"./{folder.name}" + (f"@{'+'.join(steps)}" if steps else ""),
        shape=shape,
        steps=steps,
        corpus=corpus,
        origin=origin.of(folder),
    )


def _teacher(mixer: str, size: str) -> str:
    teachers = {"nano": "micro"}
    if size not in teachers:
        raise BadInput(f"no teacher is set for size {size!r}; distil works for nano")
    return f"{mixer}:{teachers[size]}"
