"""A study -> the points that must be scored, and what names each of them."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache

from harness import candidates, plugins
from harness.checkpoint import recipe_hash
from harness.errors import BadInput, UnknownName
from harness.records import Recipe
from harness.study.frame import Arm, Study, Timing, Tuning

BAR = re.compile(r"(?P<side><=|>=) (?P<value>-?[0-9.]+)")
STEP_TIME = "step-time"  # what stands for the protocol where a step is timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One trial to be had: a recipe and how it is scored.

    rates, rates_corpus: the grid that its learning rate was chosen from
    against, rounds: the recipe whose optimiser step is timed in turns with this one's
    """

    recipe: Recipe
    protocol: str
    rates: tuple[float, ...] = ()
    rates_corpus: str = ""
    against: Recipe | None = None
    rounds: int = 0


def points(study: Study, pattern: str = "*") -> list[Point]:
    """Every trial of the study once, in the order of the file: arms, tunings, timings.

    pattern: of the names of those that are wanted. Raises UnknownName when none matches.
    """
    names = [arm.name for arm in study.arm] + [tuning.name for tuning in study.tuning]
    names += [timing.name for timing in study.timing]
    wanted = set(fnmatch.filter(names, pattern))
    if not wanted:
        raise UnknownName(f"nothing is named {pattern!r}; there are: {', '.join(names)}")
    found: dict[str, Point] = {}
    for arm in [a for a in study.arm if a.name in wanted]:
        for seed in seeds(arm.seeds):
            for step in ("", *arm.steps):
                for protocol in protocols_of(arm, step):
                    made = point(study, arm, step, protocol, seed)
                    found.setdefault(key(made), made)
    for tuning in [t for t in study.tuning if t.name in wanted]:
        for seed in seeds(tuning.seeds):
            for rate in tuning.rates:
                made = tuning_point(tuning, rate, seed)
                found.setdefault(key(made), made)
    for timing in [t for t in study.timing if t.name in wanted]:
        for seed in seeds(timing.seeds):
            made = timing_point(study, timing, seed)
            found.setdefault(key(made), made)
    return list(found.values())


def point(study: Study, arm: Arm, step: str, protocol: str, seed: int) -> Point:
    grid = tuning_of(study, arm)
    return Point(
        recipe=recipe(arm, step, seed),
        protocol=protocol,
        rates=grid.rates if grid else (),
        rates_corpus=grid.corpus if grid else "",
    )


def tuning_of(study: Study, arm: Arm) -> Tuning | None:
    """Where the arm's learning rate comes from: as it says, else of its candidate, or its side."""
    chosen = [t for t in study.tuning if t.name == arm.tuned] if arm.tuned else []
    alike = [t for t in study.tuning if t.candidate == arm.candidate]
    beside = [t for t in study.tuning if t.name == side(arm)]
    return next(iter((*chosen, *alike, *beside)), None)


def tuning_point(tuning: Tuning, rate: float, seed: int) -> Point:
    made = candidates.parse(
        tuning.candidate,
        corpus=tuning.corpus,
        tokens=tuning.tokens,
        seed=seed,
        changes={**tuning.set, "learning_rate": rate},
    )
    return Point(recipe=made, protocol="windows", rates=tuning.rates, rates_corpus=tuning.corpus)


def timing_point(study: Study, timing: Timing, seed: int) -> Point:
    """Ours under the clock, theirs beside it."""
    arms = {arm.name: arm for arm in study.arm}
    return Point(
        recipe=recipe(arms[timing.ours], "", seed),
        protocol=STEP_TIME,
        against=recipe(arms[timing.theirs], "", seed),
        rounds=timing.rounds,
    )


def recipe(arm: Arm, step: str, seed: int) -> Recipe:
    name, _, own = arm.candidate.partition("@")
    steps = "+".join(filter(None, (own, step)))
    return candidates.parse(
        f"{name}@{steps}" if steps else name,
        corpus=arm.corpus,
        tokens=arm.tokens,
        seed=seed,
        changes=arm.set,
    )


def key(point: Point) -> str:
    """Hash of all that a trial's value depends on, but for the code, which its row names."""
    inputs = [recipe_hash(point.recipe), corpus_hash(point.recipe.corpus), point.protocol]
    if point.against:
        inputs += [recipe_hash(point.against), str(point.rounds)]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]


@cache
def corpus_hash(name: str) -> str:
    return plugins.pick(plugins.corpora(), name, "corpus").load().hash


def seeds(given: int | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(given)) if isinstance(given, int) else given


def protocols_of(arm: Arm, step: str) -> tuple[str, ...]:
    return (arm.step_protocols or arm.protocols[:1]) if step else arm.protocols


def side(arm: Arm) -> str:
    """What the arm stands for where two sides are compared: a variant for what it varies."""
    mixer = re.split("[:+]", arm.candidate)[0]
    known = plugins.mixers().get(mixer)
    return arm.side or (known.folder if known else mixer)


def task(arm: Arm) -> str:
    """What the arm is asked: its corpus, and in which windows where that is a text."""
    if arm.task:
        return arm.task
    if plugins.pick(plugins.corpora(), arm.corpus, "corpus").example:
        return arm.corpus
    return f"{arm.corpus}, window {recipe(arm, '', 0).shape.context}"


def bar(text: str) -> tuple[str, float]:
    """ "<= -0.06" -> ("<=", -0.06). Raises BadInput."""
    match = BAR.fullmatch(text)
    if match is None:
        raise BadInput(f"a bar is written '<= -0.06' or '>= 0.95', not {text!r}")
    return match["side"], float(match["value"])
