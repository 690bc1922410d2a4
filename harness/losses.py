"""Checkpoint + held-out text + protocol -> what each token of it cost, by the engine.

windows: side by side, state fresh in each, every position scored
sliding: of the same length, but a quarter of it apart: all of the first is scored, then the last
    quarter of each, so that a token has three quarters of a window before it, or all there is
carried: the whole text as one stream that never forgets, for mixers whose state does not grow

Sizes: n scored tokens. Costs are in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from harness import plugins
from harness.engines.numba import session as engine
from harness.errors import BadCheckpoint, BadInput, UnknownName
from harness.reading import GIVEN
from harness.records import Array, Checkpoint, Shape

Protocol: TypeAlias = Literal["windows", "sliding", "carried"]
STEPS_A_WINDOW = 4  # of the sliding protocol
FED = 4096  # tokens fed at once, so that their logits take megabytes
ROWS = 64  # logits measured at once, so that a large vocabulary takes no gigabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What scored tokens cost, in the order of the text.

    nats (n,): float64; places (n,): of each token in the text; read (n,): tokens of context the
    model had when it was asked; window: tokens of a window, all of them for a carried text
    """

    protocol: Protocol
    window: int
    nats: Array
    places: Array
    read: Array


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens first..last of a text, read from a fresh state; what follows them is scored, but not
    what follows the `silent` first of them."""

    first: int
    last: int
    silent: int = 0


def of(
    checkpoint: Checkpoint,
    text: Array,
    protocol: Protocol = "windows",
    *,
    window: int = 0,
    most: int | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Losses:
    """What the tokens of `text` cost the packed weights.

    window: its tokens, those of the trained context by default. most: of as many windows at most,
    spread evenly over the text. Raises UnknownName, BadInput for a text too short or a mixer that
    cannot carry it, BadCheckpoint when logits are not finite.
    """
    tokens = text.astype(np.int64)
    length = window or checkpoint.shape.context
    stretches = spread(plan(checkpoint, tokens.size, protocol, length), most)
    room = max(stretch.last - stretch.first for stretch in stretches)
    nats = []
    with engine.open_session(checkpoint, room=room, threads=threads) as session:
        for done, stretch in enumerate(stretches):
            nats.append(_read(session, tokens, stretch))
            progress(done + 1, len(stretches))
    starts = [np.arange(s.first + s.silent, s.last) for s in stretches]
    return Losses(
        protocol=protocol,
        window=room if protocol == "carried" else length,
        nats=np.concatenate(nats),
        places=np.concatenate(starts) + 1,
        read=np.concatenate([a - s.first for a, s in zip(starts, stretches, strict=True)]) + 1,
    )


def plan(checkpoint: Checkpoint, size: int, protocol: str, window: int) -> list[Stretch]:
    """How a protocol reads a text of `size` tokens. Raises UnknownName, BadInput."""
    last = size - 1  # the last token has no successor
    if protocol not in get_args(Protocol):
        known = ", ".join(get_args(Protocol))
        raise UnknownName(f"unknown protocol {protocol!r}; known: {known}")
    if last < 2 * window:
        raise BadInput(f"a held-out text of {size} tokens has no two windows of {window}")
    if protocol == "windows":
        return [Stretch(at, at + window) for at in range(0, last - window + 1, window)]
    if protocol == "sliding":
        return list(_sliding(last, window))
    if grows := growing(checkpoint.shape):
        raise BadInput(
            f"{checkpoint.recipe.name}: {grows} keeps every token, so that a whole text cannot be "
            f"carried; score it by the sliding protocol"
        )
    return [Stretch(0, last)]


def spread(stretches: list[Stretch], most: int | None) -> list[Stretch]:
    """At most as many of them, evenly from first to last."""
    if most is None or len(stretches) <= most:
        return stretches
    chosen = np.unique(np.linspace(0, len(stretches) - 1, most).astype(int))
    return [stretches[i] for i in chosen]


def growing(shape: Shape) -> str:
    """The first of a stack's mixers whose state grows with the text; "" where none does."""
    for name in dict.fromkeys(shape.mixers):
        mixer = plugins.pick(plugins.mixers(), name, "mixer")
        if mixer.state_values(shape, 2**20) > mixer.state_values(shape, 1):
            return name
    return ""


def nats_of(logits: Array, targets: Array) -> Array:
    """What each target (n,) costs by logits (n,vocabulary), float64; 0 for one that is GIVEN."""
    found = np.empty(targets.size)
    for first in range(0, targets.size, ROWS):
        values = logits[first : first + ROWS].astype(np.float64)
        wanted = targets[first : first + ROWS]
        top = values.max(-1)
        total = np.log(np.exp(values - top[:, None]).sum(-1)) + top
        cost = total - values[np.arange(wanted.size), np.maximum(wanted, 0)]
        found[first : first + ROWS] = np.where(wanted == GIVEN, 0.0, cost)
    return found


def finite(logits: Array, name: str) -> Array:
    """The logits. Raises BadCheckpoint when one is not finite."""
    if not np.isfinite(logits).all():
        raise BadCheckpoint(f"{name} gives logits that are not finite")
    return logits


def _sliding(last: int, window: int) -> Iterator[Stretch]:
    """Every token up to `last` is scored once; the last stretch scores what is left."""
    step = max(1, window // STEPS_A_WINDOW)
    yield Stretch(0, window)
    for done in range(window, last, step):
        end = min(done + step, last)
        yield Stretch(end - window, end, silent=done - (end - window))


def _read(session: engine.Session, tokens: Array, stretch: Stretch) -> Array:
    """Nats of what the stretch scores."""
    engine.reset(session)
    found: list[Array] = []
    for at in range(stretch.first, stretch.last, FED):
        end = min(at + FED, stretch.last)
        logits = finite(engine.feed(session, tokens[at:end], every=True), session.name)
        skip = max(0, stretch.first + stretch.silent - at)
        found.append(nats_of(logits[skip:], tokens[at + 1 + skip : end + 1]))
    return np.concatenate(found)
