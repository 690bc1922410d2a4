"""Checkpoint's recipe and formats + a workload's name -> what one run executes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from harness import plugins
from harness.candidates import stored, tensors
from harness.errors import BadInput
from harness.records import Call, Format, Recipe, Shape, Tensor, Workload

NAME = re.compile(r"(?P<kind>pp|tg)(?P<tokens>\d+)( @ d(?P<depth>\d+))?|(?P<ttft>ttft)")
TTFT_PROMPT = 128  # tokens before the first one that is generated


@dataclass(frozen=True, slots=True)
class Run:
    """A workload's name taken apart."""

    name: str
    phase: Literal["prefill", "decode"]
    tokens: int
    depth: int


def parse(name: str) -> Run:
    """pp128, tg64, tg64 @ d4096 or ttft (a prompt of 128 tokens to the first logits).

    Raises BadInput.
    """
    match = NAME.fullmatch(name.strip())
    if match is None:
        raise BadInput(
            f"workload {name!r} is not known; write pp128 (prefill), tg64 (decode), "
            f"tg64 @ d4096 (decode at that depth) or ttft"
        )
    if match["ttft"]:
        return Run(name, "prefill", TTFT_PROMPT, 0)
    tokens, depth = int(match["tokens"]), int(match["depth"] or 0)
    if not 1 <= tokens <= 1_000_000 or depth > 10_000_000:
        raise BadInput(f"workload {name!r} is out of range")
    return Run(name, "prefill" if match["kind"] == "pp" else "decode", tokens, depth)


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
    tokens = run.tokens if run.phase == "prefill" else 1
    depth = run.depth if run.phase == "prefill" else run.depth + run.tokens // 2
    forms = stored(recipe, shape) if known is None else known
    ffn = plugins.pick(plugins.ffns(), shape.ffn, "ffn")
    norm = _norm(shape, tokens)
    calls: list[Call] = []
    for (name, mixing, feeding), layers in Counter(_layers(shape, forms)).items():
        mixer = plugins.pick(plugins.mixers(), name, "mixer")
        mix = _filled(mixer.calls(shape, tokens, depth), mixer.tensors(shape), mixing, "mixer")
        feed = _filled(ffn.calls(shape, tokens, recipe.active), ffn.tensors(shape), feeding, "ffn")
        calls += [replace(c, count=c.count * layers) for c in (norm, *mix, norm, *feed)]
    head = Tensor("head", (shape.vocabulary, shape.width))
    form = forms.get("embedding" if shape.tied else "head", "f32")
    calls += [replace(norm, count=1), *_filled((Call.of_matrix(head, 1),), (head,), form, "head")]
    return Workload(
        name=run.name,
        phase=run.phase,
        tokens=run.tokens,
        depth=run.depth,
        layers=shape.layers,
        calls=tuple(calls),
        resident_bytes=resident_bytes or _resident(shape, forms, run),
    )


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
