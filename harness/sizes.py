"""A size's file in the zoo, for a stack of mixers and an ffn -> the Shape it stands for."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import plugins
from harness.errors import BadInput, UnknownName
from harness.records import RopeScaling, Shape

ZOO = Path(__file__).parent / "zoo"
# Neurons an ffn of groups switches at once in models too large to be trained here: as many as make
# a jump in memory cheap, see `edgewise peers selective`. In small ones a choice should be finer.
LARGE_GROUP = 128
# Stacks of two mixers: so many layers of attention, spread evenly, among MCSD.
HYBRIDS = {"hybrid": 1, "hybrid2": 2}
MINOR, MAJOR = "attention", "mcsd"
MULTIPLE = 32  # of every width, so that groups of an ffn and of a format come out even


def names() -> list[str]:
    return sorted(path.stem for path in ZOO.glob("*.toml"))


def summary(size: str) -> str:
    return str(read(size)["summary"])


def stated_parameters(size: str) -> int:
    """What the size's file says its candidates have, within 2 %."""
    return int(read(size)["parameters"])


def read(size: str) -> dict[str, Any]:
    if size not in names():
        raise UnknownName(f"unknown size {size!r}; known: {', '.join(names())} (in {ZOO})")
    return tomllib.loads((ZOO / f"{size}.toml").read_text("utf-8"))


def stack(mixer: str, layers: int) -> tuple[str, ...]:
    """The mixer of each layer."""
    count = HYBRIDS.get(mixer)
    if count is None:
        return (mixer,) * layers
    if count >= layers:
        raise BadInput(f"{mixer!r} needs more than {count} layers, this size has {layers}")
    places = {(2 * i + 1) * layers // (2 * count) for i in range(count)}
    return tuple(MINOR if layer in places else MAJOR for layer in range(layers))


def _hidden(raw: Mapping[str, Any], mixers: Sequence[str]) -> int:
    """The ffn's width that gives every stack of a size about as many parameters.

    Of two mixers the mean over layers, since parameters grow linearly with it. A variant that the
    size does not name has the width of its folder's mixer and what it saves on its own matrices.
    Raises UnknownName.
    """
    known, widths = raw["hidden"], []
    for mixer in mixers:
        if mixer in known:
            widths.append(known[mixer])
            continue
        base = plugins.pick(plugins.mixers(), mixer, "mixer").folder
        if base not in known:
            raise UnknownName(
                f"this size has no ffn width for {mixer!r}; known: {', '.join(sorted(known))}"
            )
        saved = _weights(raw, base) - _weights(raw, mixer)
        widths.append(known[base] + saved / (3 * raw["width"]))
    return round(float(sum(widths)) / len(widths) / MULTIPLE) * MULTIPLE


def _weights(raw: Mapping[str, Any], mixer: str) -> int:
    """What the matrices of one layer of the mixer hold."""
    spec = plugins.pick(plugins.mixers(), mixer, "mixer")
    tensors = spec.tensors(_with(raw, (mixer,) * raw["layers"], "dense", 32))
    return sum(math.prod(t.shape) for t in tensors if t.packed)


def shape(raw: Mapping[str, Any], mixers: tuple[str, ...], ffn: str) -> Shape:
    """The size's dimensions with these mixers, one a layer, and the width that fits them."""
    return _with(raw, mixers, ffn, _hidden(raw, mixers))


def _with(raw: Mapping[str, Any], mixers: tuple[str, ...], ffn: str, hidden: int) -> Shape:
    large = ffn != "dense" and not raw["trained"]
    return Shape(
        vocabulary=raw["vocabulary"],
        width=raw["width"],
        layers=raw["layers"],
        mixers=mixers,
        ffn=ffn,
        hidden=hidden,
        heads=raw["heads"],
        kv_heads=raw["kv_heads"],
        head_width=raw["head_width"],
        channels=raw["channels"],
        context=raw["context"],
        group=_group(hidden) if large else 32,
        tied=raw.get("tied", False),
        rope_base=raw.get("rope_base", 10000.0),
        rope_scaling=RopeScaling(**raw["rope_scaling"]) if "rope_scaling" in raw else None,
        norm_epsilon=raw.get("norm_epsilon", 1e-5),
    )


def _group(hidden: int) -> int:
    """The multiple of 32 nearest to LARGE_GROUP, by ratio, that divides an ffn's width."""
    fit = [w for w in range(32, hidden + 1, 32) if hidden % w == 0] or [32]
    return min(fit, key=lambda w: abs(math.log(w / LARGE_GROUP)))
