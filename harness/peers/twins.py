"""One checkpoint in our engine and in llama.cpp at once, so that they can take turns.

Both are pinned to the same cores, get the same tokens, and hand over the logits of every step.
Nothing is timed before their logits agree.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from harness import candidates, export, limits, steps, workload
from harness.engines.llama_cpp import LlamaCpp
from harness.engines.numba import session as ours
from harness.errors import Mismatch
from harness.make import make
from harness.peers.frame import Setup
from harness.peers.limit import hire
from harness.peers.rounds import Side
from harness.records import Array, Checkpoint, Workload

Sides: TypeAlias = dict[str, Side]

TYPES = {"f16": "F16", "int8": "Q8_0", "int8g32": "Q8_0", "int4": "Q4_0"}  # of llama.cpp
# Of logits, root mean square, between the two. Each rounds activations in its own way, and random
# weights in many layers make more of it than trained ones do.
ALLOWED = {"f16": 1e-2, "int8": 0.1, "int8g32": 0.1, "int4": 0.1}
PROBE = 32  # tokens on which they must agree


@dataclass(frozen=True, slots=True)
class Exported:
    """A candidate of random or trained weights, as both engines read it."""

    name: str
    form: str
    checkpoint: Checkpoint
    path: Path


@dataclass(frozen=True, slots=True)
class Player:
    """One engine with a context. `rewind` makes it forget all but the first so many tokens."""

    feed: Callable[[Array], Array]
    step: Callable[[int], Array]
    rewind: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """The same weights in both engines, "ours" and "llama.cpp".

    chosen: what llama.cpp says it made of them
    """

    players: Mapping[str, Player]
    vocabulary: int
    chosen: str


@contextmanager
def exported(candidate: str) -> Iterator[Exported]:
    """The candidate's checkpoint, and a file of it for as long as the block lasts."""
    recipe = candidates.parse(candidate)
    checkpoint = make(recipe)
    with tempfile.TemporaryDirectory(prefix="edgewise-peers-") as folder:
        path = Path(folder) / "model.gguf"
        export.export(checkpoint, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # or the system writes it while somebody is timed
        yield Exported(candidate, steps.formats(recipe.steps)[0], checkpoint, path)


@contextmanager
def opened(model: Exported, setup: Setup, threads: int, *, room: int) -> Iterator[Twins]:
    """Both engines on as many pinned threads. Raises Mismatch when their logits differ."""
    cores, cache = setup.cpus[:threads], model.checkpoint.shape.cache

    def start() -> LlamaCpp:
        session = LlamaCpp(model.path, room=room, threads=threads, cache=cache)
        session.feed(tokens)
        return session

    tokens = text(model.checkpoint.shape.vocabulary, PROBE)
    with (
        hire(setup, threads, start) as theirs,
        ours.open_session(model.checkpoint, room=room, threads=threads, cores=cores) as mine,
    ):
        players = {
            "ours": player(mine),
            "llama.cpp": Player(theirs.feed, theirs.step, theirs.rewind),
        }
        for each in players.values():
            each.rewind(0)
        difference = _distance(*(each.feed(tokens) for each in players.values()))
        if difference > ALLOWED[model.form]:
            raise Mismatch(
                f"{model.name}: our logits and those of llama.cpp differ by {difference:.1e}, "
                f"allowed {ALLOWED[model.form]:.0e}"
            )
        yield Twins(players=players, vocabulary=mine.shape.vocabulary, chosen=theirs.chosen)


def player(session: ours.Session) -> Player:
    """Ours. A cache is overwritten behind the depth it is set back to; a recurrent state, whose
    cost does not depend on depth, goes on from where it is.
    """

    def rewind(depth: int) -> None:
        session.depth = depth

    return Player(partial(ours.feed, session), partial(ours.step, session), rewind)


def decode(players: Mapping[str, Player], vocabulary: int, depth: int, steps: int) -> Sides:
    """Seconds of one of `steps` tokens from `depth` on, which all must have seen.

    What lay behind is lost: begin with the deepest.
    """
    tokens = [int(token) for token in text(vocabulary, steps)]

    def side(each: Player) -> Side:
        def turn() -> float:
            each.rewind(depth)
            begin = time.perf_counter()
            for token in tokens:
                each.step(token)[0]  # read, so that nobody can owe it
            return (time.perf_counter() - begin) / steps

        return turn

    return {name: side(each) for name, each in players.items()}


def prefill(players: Mapping[str, Player], vocabulary: int, prompt: int) -> Sides:
    """Seconds from a prompt of so many tokens to the logits after its last one."""
    tokens = text(vocabulary, prompt)

    def side(each: Player) -> Side:
        def turn() -> float:
            each.rewind(0)
            begin = time.perf_counter()
            each.feed(tokens)[0]
            return time.perf_counter() - begin

        return turn

    return {name: side(each) for name, each in players.items()}


def fill(players: Mapping[str, Player], vocabulary: int, depth: int) -> None:
    """Let all read the same text up to a depth."""
    for each in players.values():
        each.rewind(0)
        each.feed(text(vocabulary, depth))


def read_in_a_step(candidate: str, depth: int = 0) -> Workload:
    """What one decode step of a candidate reads, from its recipe alone."""
    recipe = candidates.parse(candidate)
    run = workload.parse(f"tg1 @ d{depth}" if depth else "tg1")
    return workload.build(recipe, candidates.final_shape(recipe), run)


def outgrows_caches(size: int, setup: Setup) -> bool:
    """Whether memory has to deliver nearly all of so many bytes each time they are read."""
    return size > 1.5 * limits.last_cache(setup.cpus)


def text(vocabulary: int, count: int) -> Array:
    """Tokens at random, the same for the same count."""
    return np.random.default_rng(count).integers(0, vocabulary, count)


def _distance(found: Array, wanted: Array) -> float:
    """Relative root mean square; a constant added to all logits means nothing."""
    found, wanted = found - found.mean(), wanted - wanted.mean()
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
