"""A study's TOML -> a checked Study -> the points that must be scored."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness import candidates, plugins
from harness.checkpoint import recipe_hash
from harness.errors import BadInput, UnknownName
from harness.records import Recipe
from harness.study import expression, protocols
from harness.study.expression import Reference
from harness.study.frame import Arm, Claim, Line, Study, Timing, Tuning
from targets import profile

NAME = re.compile(r"[a-z][a-z0-9_.]*")
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


def is_study(path: Path) -> bool:
    """Whether a TOML has arms: the other kind of sweep has blocks to measure."""
    try:
        return "arm" in tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False


def load(path: Path, devices: Path | None = None) -> Study:
    """Read and check a study and every name in it. Raises BadInput, UnknownName.

    devices: a folder of the user's own device profiles
    """
    try:
        study = TypeAdapter(Study).validate_python(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise BadInput(f"the study {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BadInput(f"{path}: {key}: {first['msg']}, got {first['input']!r}") from None
    try:
        _check(study, devices)
    except (BadInput, UnknownName) as error:
        raise type(error)(f"{path}: {error}") from None
    return study


def points(study: Study) -> list[Point]:
    """Every trial of the study once, in the order of the file: arms, tunings, timings."""
    found: dict[str, Point] = {}
    for arm in study.arm:
        for seed in seeds(arm.seeds):
            for step in ("", *arm.steps):
                for protocol in protocols_of(arm, step):
                    made = point(study, arm, step, protocol, seed)
                    found.setdefault(key(made), made)
    for tuning in study.tuning:
        for seed in seeds(tuning.seeds):
            for rate in tuning.rates:
                made = tuning_point(tuning, rate, seed)
                found.setdefault(key(made), made)
    for timing in study.timing:
        for seed in seeds(timing.seeds):
            made = timing_point(study, timing, seed)
            found.setdefault(key(made), made)
    return list(found.values())


def point(study: Study, arm: Arm, step: str, protocol: str, seed: int) -> Point:
    grid = next((t for t in study.tuning if t.name == (arm.tuned or side(arm))), None)
    return Point(
        recipe=recipe(arm, step, seed),
        protocol=protocol,
        rates=grid.rates if grid else (),
        rates_corpus=grid.corpus if grid else "",
    )


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
    """What the arm stands for where two sides are compared."""
    return arm.side or re.split("[:+]", arm.candidate)[0]


def task(arm: Arm) -> str:
    """What the arm is trained on, for how long and in which windows."""
    if arm.task:
        return arm.task
    made = recipe(arm, "", 0)
    return f"{made.corpus}, window {made.shape.context}"


def bar(text: str) -> tuple[str, float]:
    """ "<= -0.06" -> ("<=", -0.06). Raises BadInput."""
    match = BAR.fullmatch(text)
    if match is None:
        raise BadInput(f"a bar is written '<= -0.06' or '>= 0.95', not {text!r}")
    return match["side"], float(match["value"])


def _check(study: Study, devices: Path | None) -> None:
    names = [a.name for a in study.arm] + [t.name for t in study.timing]
    for name in names:
        if NAME.fullmatch(name) is None or name in expression.CHOICES:
            raise BadInput(f"an arm's name is small letters, digits, _ and ., not {name!r}")
        if names.count(name) > 1:
            raise BadInput(f"there are two arms or timings of the name {name!r}")
    tunings = {t.name: t for t in study.tuning}
    for arm in study.arm:
        _check_arm(arm, tunings)
    arms = {arm.name: arm for arm in study.arm}
    for tuning in study.tuning:
        tuning_point(tuning, tuning.rates[0] if tuning.rates else 0.0, 0)
        if not tuning.rates:
            raise BadInput(f"the tuning {tuning.name!r} has no learning rates")
    for timing in study.timing:
        for name in (timing.ours, timing.theirs):
            plugins.pick(arms, name, "arm")
        if timing.rounds < 1:
            raise BadInput(f"{timing.name!r} needs at least one round, got {timing.rounds}")
    known: dict[str, Arm | Timing] = {**arms, **{t.name: t for t in study.timing}}
    for claim in study.claim:
        bar(claim.bar)
        _check_value(claim, known)
    for line in study.line:
        _check_value(line, known)
    for ranking in study.ranking:
        for name in ranking.arms:
            plugins.pick(arms, name, "arm")
    for name in study.devices:
        profile.load(name, devices)


def _check_arm(arm: Arm, tunings: Mapping[str, Tuning]) -> None:
    if not arm.protocols or not seeds(arm.seeds):
        raise BadInput(f"the arm {arm.name!r} needs a seed and a protocol")
    if arm.tuned:
        plugins.pick(tunings, arm.tuned, "tuning")
    for protocol in (*arm.protocols, *arm.step_protocols):
        plugins.pick(protocols.PROTOCOLS, protocol, "protocol")
    plugins.pick(plugins.corpora(), arm.corpus, "corpus")
    for step in ("", *arm.steps):
        made = recipe(arm, step, 0)
        if made.tokens < 1:
            raise BadInput(f"the arm {arm.name!r} is not trained: {arm.candidate} has no tokens")


def _check_value(said: Claim | Line, known: Mapping[str, Arm | Timing]) -> None:
    for reference in expression.references(expression.parse(said.value)):
        thing = plugins.pick(known, reference.arm, "arm")
        if isinstance(thing, Arm):
            _check_reference(said.value, reference, thing)
        elif reference.step or reference.protocol:
            raise BadInput(f"{said.value!r}: {reference.arm!r} is a timing; it has no steps")


def _check_reference(text: str, reference: Reference, arm: Arm) -> None:
    if reference.step and reference.step not in arm.steps:
        steps = ", ".join(arm.steps) or "none"
        raise BadInput(
            f"{text!r}: the arm {arm.name!r} has no step {reference.step!r}; it has {steps}"
        )
    have = protocols_of(arm, reference.step)
    if reference.protocol and reference.protocol not in have:
        raise BadInput(
            f"{text!r}: {reference.arm!r} is not scored by {reference.protocol!r} there; "
            f"it is by {', '.join(have)}"
        )
