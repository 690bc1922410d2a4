"""A study's TOML -> a checked Study; each mistake is one line that names the file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from harness import plugins, toml
from harness.errors import BadInput, UnknownName
from harness.study import expression, protocols
from harness.study.expression import Reference
from harness.study.frame import Arm, Claim, Line, Study, Timing, Tuning
from harness.study.plan import bar, protocols_of, recipe, seeds, tuning_point
from targets import profile

NAME = re.compile(r"[a-z][a-z0-9_.]*")


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
    study = toml.read(path, Study, f"the study {path} does not exist")
    try:
        _check(study, devices)
    except (BadInput, UnknownName) as error:
        raise type(error)(f"{path}: {error}") from None
    return study


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
