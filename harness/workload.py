"""Checkpoint's recipe and formats + a workload's name -> what one run executes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from harness import optimiser, plugins
from harness.candidates import parameters, stored, tensors
from harness.errors import BadInput
from harness.records import Call, Format, Phase, Recipe, Shape, Tensor, Workload

NAME = re.compile(r"(?P<kind>pp|tg)(?P<tokens>\d+)( @ d(?P<depth>\d+))?|(?P<ttft>ttft)|train")
TRAIN = "train"
TTFT_PROMPT = 128  # tokens before the first one that is generated


@dataclass(frozen=True, slots=True)
class Run:
    """A workload's name taken apart; see `of` for the tokens of a training step."""

    name: str
    phase: Phase
    tokens: int
    depth: int


def parse(name: str) -> Run:
    """pp128, tg64, tg64 @ d4096, ttft (a prompt of 128 tokens to the first logits) or train.

    Raises BadInput.
    """
    match = NAME.fullmatch(name.strip())
    if match is None:
        raise BadInput(
            f"workload {name!r} is not known; write pp128 (prefill), tg64 (decode), "
            f"tg64 @ d4096 (decode at that depth), ttft or {TRAIN}"
        )
    if match[0] == TRAIN:
        return Run(TRAIN, "train", 0, 0)
    if match["ttft"]:
        return Run(name, "prefill", TTFT_PROMPT, 0)
    tokens, depth = int(match["tokens"]), int(match["depth"] or 0)
    if not 1 <= tokens <= 1_000_000 or depth > 10_000_000:
        raise BadInput(f"workload {name!r} is out of range")
    return Run(name, "prefill" if match["kind"] == "pp" else "decode", tokens, depth)


def of(recipe: Recipe, name: str) -> Run:
    """The run of a recipe: an optimiser step takes a batch of windows. Raises BadInput."""
    run = parse(name)
    if run.phase != "train":
        return run
    if recipe.origin:
        raise BadInput(f"{recipe.name} has no {TRAIN!r} workload: it is trained already")
    if recipe.steps:
        raise BadInput(
            f"{recipe.name} has no {TRAIN!r} workload: training runs on float weights, before "
            f"{recipe.steps[0]!r}; ask for {recipe.name.partition('@')[0]}"
        )
    return replace(run, tokens=recipe.batch * recipe.shape.context)


def engine_of(phase: Phase) -> str:
    """Ours runs a model; PyTorch trains it."""
    return "torch" if phase == "train" else "numba"


def build(
    recipe: Recipe,
    shape: Shape,
    run: Run,
    resident_bytes: int = 0,
    known: Mapping[str, str] | None = None,
) -> Workload:
    """The calls of one step of a run: of the whole prompt, or of the token in its middle.

    shape: that of the checkpoint, after pruning. resident_bytes: counted by the engine, or 0 to
    estimate it from the formats. known: formats of the checkpoint's tensors, else the recipe's
    """
    if run.phase == "train":
        return _training(recipe, shape, run, resident_bytes)
    tokens = run.tokens if run.phase == "prefill" else 1
    depth = run.depth if run.phase == "prefill" else run.depth + run.tokens // 2
    forms = stored(recipe, shape) if known is None else known
    return Workload(
        name=run.name,
        phase=run.phase,
        tokens=run.tokens,
        depth=run.depth,
        layers=shape.layers,
        calls=_forward(shape, forms, recipe.active, tokens, depth, asked=1),
        resident_bytes=resident_bytes or _resident(shape, forms, run),
    )


def _forward(
    shape: Shape, forms: Mapping[str, str], active: float, tokens: int, depth: int, asked: int
) -> tuple[Call, ...]:
    """Every call of the stack for `tokens` new tokens, after `asked` of which it is asked."""
    ffn = plugins.pick(plugins.ffns(), shape.ffn, "ffn")
    norm = _norm(shape, tokens)
    calls: list[Call] = []
    for (name, mixing, feeding), layers in Counter(_layers(shape, forms)).items():
        mixer = plugins.pick(plugins.mixers(), name, "mixer")
        mix = _filled(mixer.calls(shape, tokens, depth), mixer.tensors(shape), mixing, "mixer")
        feed = _filled(ffn.calls(shape, tokens, active), ffn.tensors(shape), feeding, "ffn")
        calls += [replace(c, count=c.count * layers) for c in (norm, *mix, norm, *feed)]
    head = Tensor("head", (shape.vocabulary, shape.width))
    form = forms.get("embedding" if shape.tied else "head", "f32")
    last = _filled((Call.of_matrix(head, asked),), (head,), form, "head")
    return (*calls, replace(norm, count=1), *last)


def _training(recipe: Recipe, shape: Shape, run: Run, resident_bytes: int) -> Workload:
    """One optimiser step over the recipe's batch of windows."""
    return Workload(
        name=run.name,
        phase="train",
        tokens=run.tokens,
        depth=0,
        layers=shape.layers,
        calls=optimiser.step(_windows(recipe, shape), parameters(shape)),
        resident_bytes=resident_bytes or held(recipe, shape).total,
    )


def held(recipe: Recipe, shape: Shape) -> optimiser.Held:
    """What one optimiser step of a recipe keeps in memory."""
    b, n = recipe.batch, shape.context
    mixers = [plugins.pick(plugins.mixers(), name, "mixer") for name in shape.mixers]
    ffn = plugins.pick(plugins.ffns(), shape.ffn, "ffn")
    besides = sum(mixer.kept(shape, b, n) + ffn.kept(shape, b, n) for mixer in mixers)
    besides += b * n * (shape.width + 2 * shape.layers + 1)  # embedded tokens, scales of norms
    return optimiser.held(parameters(shape), _windows(recipe, shape), b * n, besides)


def _windows(recipe: Recipe, shape: Shape) -> tuple[Call, ...]:
    """The calls of a forward pass over a batch; while it trains, all of an ffn runs."""
    n, shape = shape.context, replace(shape, chosen=shape.hidden // shape.group)
    return optimiser.batched(_forward(shape, {}, 1.0, n, 0, asked=n), recipe.batch)


def _layers(shape: Shape, forms: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Of each layer, the mixer and the formats of the mixer's and of the ffn's matrices."""
    ffn = plugins.pick(plugins.ffns(), shape.ffn, "ffn")
    for layer, name in enumerate(shape.mixers):
        mixer = plugins.pick(plugins.mixers(), name, "mixer")
        places = (("mixer", mixer.tensors(shape)), ("ffn", ffn.tensors(shape)))
        first = [
            next(f"layers.{layer}.{half}.{t.name}" for t in given if t.packed)
            for half, given in places
        ]
        yield name, forms.get(first[0], "f32"), forms.get(first[1], "f32")


def _filled(
    calls: tuple[Call, ...],
    given: tuple[Tensor, ...],
    form: str,
    part: Literal["mixer", "ffn", "head"],
) -> tuple[Call, ...]:
    """Calls with their part, and the bytes and the arithmetic of the weights they name."""
    spec = plugins.pick(plugins.formats(), form, "format")
    by_name: Mapping[str, Tensor] = {t.name: t for t in given}
    found = []
    for call in calls:
        if call.weight:
            tensor = by_name[call.weight]
            call = replace(
                call,
                kernel=spec.kernel if call.sizes["n"] > 1 else _single(spec.kernel),
                operations=round(call.operations * spec.density),
                weight_bytes=round(call.share * _stream_bytes(spec, tensor)),
                arithmetic=spec.arithmetic,
                format=form,
            )
        found.append(replace(call, part=part))
    return tuple(found)


def _stream_bytes(spec: Format, tensor: Tensor) -> int:
    """What a tensor takes in memory: its parts are laid out one by one."""
    rows, columns = tensor.shape
    if tensor.axis == 0:
        return tensor.parts * spec.layout_bytes(rows // tensor.parts, columns)
    return tensor.parts * spec.layout_bytes(rows, columns // tensor.parts)


def _single(kernel: str) -> str:
    return kernel.replace("matmul_", "matvec_")


def _norm(shape: Shape, tokens: int) -> Call:
    return Call(
        kernel="rmsnorm",
        sizes={"n": tokens, "k": shape.width},
        count=1,
        operations=4 * tokens * shape.width,
        weight_bytes=4 * shape.width,
        activation_bytes=8 * tokens * shape.width,
        part="norm",
    )


def _resident(shape: Shape, forms: Mapping[str, str], run: Run) -> int:
    """Weights and state; scratch is small beside them."""
    total = 0
    for name, tensor in tensors(shape).items():
        if tensor.packed:
            spec = plugins.pick(plugins.formats(), forms.get(name, "f32"), "format")
            total += _stream_bytes(spec, tensor)
        else:
            total += 4 * tensor.shape[0] * (tensor.shape[1] if len(tensor.shape) > 1 else 1)
    room = run.depth + run.tokens
    mixers = (plugins.pick(plugins.mixers(), name, "mixer") for name in shape.mixers)
    return total + sum(4 * mixer.state_values(shape, room) for mixer in mixers)
