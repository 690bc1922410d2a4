"""Trials -> values with intervals over seeds -> which claims are met."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from harness.study import expression, plan
from harness.study.expression import BySeed, Reference
from harness.study.frame import Claim, Study, Timing, Trial

Met: TypeAlias = Literal["yes", "no", "unresolved"]
COLUMNS = ("claim", "value", "low", "high", "bar", "seeds", "met")
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Mean over seeds; low and high end its 95 % interval, None below two seeds.

    value is None where no seed has all that the expression names.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    seeds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    claim: Claim
    estimate: Estimate
    met: Met


def verdicts(study: Study, trials: Mapping[str, Trial]) -> list[Verdict]:
    """Each claim with what the trials, by the key of their point, say of it."""
    found = []
    for claim in study.claim:
        known = estimate(study, trials, claim.value)
        found.append(Verdict(claim=claim, estimate=known, met=met(known, claim.bar)))
    return found


def estimate(study: Study, trials: Mapping[str, Trial], text: str) -> Estimate:
    """What an expression comes to, paired by seed."""
    by_seed = expression.evaluate(expression.parse(text), values(study, trials))
    if isinstance(by_seed, float):
        return Estimate(value=by_seed, low=by_seed, high=by_seed)
    return interval(list(by_seed.values()))


def interval(samples: Sequence[float]) -> Estimate:
    """The mean and Student's interval of it."""
    from scipy.stats import t  # noqa: PLC0415 - heavy, and only statistics need it

    kept = [s for s in samples if math.isfinite(s)]
    if not kept:
        return Estimate(value=None)
    count, mean = len(kept), math.fsum(kept) / len(kept)
    if count < 2:
        return Estimate(value=mean, seeds=count)
    deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in kept) / (count - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    return Estimate(value=mean, low=mean - half, high=mean + half, seeds=count)


def met(known: Estimate, bar: str) -> Met:
    """Only where the whole interval is on one side."""
    side, limit = plan.bar(bar)
    if known.low is None or known.high is None:
        return "unresolved"
    low, high = (known.low, known.high) if side == "<=" else (-known.high, -known.low)
    limit = limit if side == "<=" else -limit
    return "yes" if high <= limit else "no" if low > limit else "unresolved"


def values(study: Study, trials: Mapping[str, Trial]) -> Callable[[Reference], BySeed]:
    """What a name in an expression stands for: a number for each seed that was scored."""
    arms = {arm.name: arm for arm in study.arm}
    timings: dict[str, Timing] = {timing.name: timing for timing in study.timing}

    def read(reference: Reference) -> BySeed:
        found = {}
        if timing := timings.get(reference.arm):
            points = [plan.timing_point(study, timing, s) for s in plan.seeds(timing.seeds)]
        else:
            arm = arms[reference.arm]
            protocol = reference.protocol or plan.protocols_of(arm, reference.step)[0]
            points = [
                plan.point(study, arm, reference.step, protocol, seed)
                for seed in plan.seeds(arm.seeds)
            ]
        for point in points:
            trial = trials.get(plan.key(point))
            value = figure(trial, reference.figure) if trial and not trial.failed else None
            if value is not None:
                found[point.recipe.seed] = value
        return found

    return read


def figure(trial: Trial, name: str) -> float | None:
    """A number of a trial: the score by "", a figure, or a field of the row; None where none is."""
    if not name:
        return trial.figures.get("nats", trial.value)
    if name in trial.figures:
        return trial.figures[name]
    value = getattr(trial, name, None)
    return float(value) if isinstance(value, int | float) else None


def summary(found: Sequence[Verdict]) -> str:
    """CSV; a number that could not be had is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for verdict in found:
        known = verdict.estimate
        numbers = ["" if v is None else f"{v:.5g}" for v in (known.value, known.low, known.high)]
        row = [verdict.claim.claim, *numbers, verdict.claim.bar, known.seeds, verdict.met]
        writer.writerow(row)
    return out.getvalue()
