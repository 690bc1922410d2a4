"""Trials -> one standing for each arm and step: scores by seed, size, and cost on devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import correct, evidence, forecast, roofline
from harness.evidence import Reading
from harness.records import Failed, Measured, Row
from harness.roofline import Fit
from harness.study import claims, plan
from harness.study.claims import Estimate
from harness.study.frame import Arm, Study, Trial
from targets import profile
from targets.profile import Device

WORKLOAD = "tg64"  # what a device is asked: 64 tokens from an empty context


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a token takes on a device, projected; None where the model cannot tell."""

    seconds: Reading | None
    joules: Reading | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standing:
    """An arm after a step, by one protocol.

    by_seed: its scores, in nats where it is a text; trials: what they come from
    """

    arm: str
    step: str
    protocol: str
    task: str
    side: str
    by_seed: Mapping[int, float]
    metric: str
    trials: Mapping[int, Trial]
    costs: Mapping[str, Cost] = field(default_factory=dict)

    @property
    def trial(self) -> Trial:
        """The one of the first seed, for what all of them share."""
        return next(iter(self.trials.values()))

    @property
    def name(self) -> str:
        return f"{self.arm}@{self.step}" if self.step else self.arm

    @property
    def score(self) -> Estimate:
        return claims.interval(list(self.by_seed.values()))

    @property
    def better(self) -> float:
        """1 where less is better, else -1."""
        return -1.0 if self.metric == "accuracy" else 1.0


def standings(
    study: Study, trials: Mapping[str, Trial], devices: Path | None = None
) -> list[Standing]:
    """Every arm and step that at least one seed was scored of, in the order of the study."""
    targets = [profile.load(name, devices) for name in study.devices]
    fit = correct.informed(roofline.load(), devices)
    found = []
    for arm in study.arm:
        for step in ("", *arm.steps):
            for protocol in plan.protocols_of(arm, step):
                known = scored(study, trials, arm, step, protocol)
                if known:
                    found.append(_standing(arm, step, protocol, known, targets, fit))
    return found


def scored(
    study: Study, trials: Mapping[str, Trial], arm: Arm, step: str, protocol: str
) -> dict[int, Trial]:
    """The trials that have a value, by seed."""
    found = {}
    for seed in plan.seeds(arm.seeds):
        trial = trials.get(plan.key(plan.point(study, arm, step, protocol, seed)))
        if trial is not None and trial.value is not None:
            found[seed] = trial
    return found


def difference(ours: Standing, theirs: Standing) -> Estimate:
    """Ours less theirs, paired by seed."""
    both = [s for s in ours.by_seed if s in theirs.by_seed]
    return claims.interval([ours.by_seed[s] - theirs.by_seed[s] for s in both])


def front(points: Sequence[Standing], cost: Callable[[Standing], float | None]) -> list[Standing]:
    """Those that nothing of at most their cost beats, cheapest first."""
    kept: list[Standing] = []
    known = [(value, p) for p in points if (value := cost(p)) is not None]
    for _, point in sorted(known, key=lambda pair: (pair[0], pair[1].better * mean(pair[1]))):
        if not kept or point.better * mean(point) < kept[-1].better * mean(kept[-1]):
            kept.append(point)
    return kept


def best_within(
    points: Sequence[Standing], cost: Callable[[Standing], float | None], budget: float
) -> Standing | None:
    """The best score that costs no more."""
    fit = [p for p in points if (value := cost(p)) is not None and value <= budget]
    return min(fit, key=lambda p: p.better * mean(p), default=None)


def mean(point: Standing) -> float:
    return sum(point.by_seed.values()) / len(point.by_seed)


def _standing(
    arm: Arm,
    step: str,
    protocol: str,
    known: Mapping[int, Trial],
    targets: Sequence[Device],
    fit: Fit,
) -> Standing:
    first = next(iter(known.values()))
    return Standing(
        arm=arm.name,
        step=step,
        protocol=protocol,
        task=plan.task(arm),
        side=plan.side(arm),
        by_seed={seed: _value(trial) for seed, trial in known.items()},
        metric="nats per token" if "nats" in first.figures else first.metric,
        trials=known,
        costs={device.name: _cost(first, device, fit) for device in targets},
    )


def _value(trial: Trial) -> float:
    value = claims.figure(trial, "")
    return float("nan") if value is None else value


def _cost(trial: Trial, device: Device, fit: Fit) -> Cost:
    """Of a token in a decode from an empty context, at the thread count that is fastest there."""
    row = forecast.forecast(as_row(trial), device, fit)
    return Cost(
        seconds=evidence.per(evidence.read(row.seconds), row.tokens),
        joules=evidence.per(evidence.read(row.joules), row.tokens),
    )


def as_row(trial: Trial) -> Row:
    """The trial as a row of a device that was never timed, from which projections start."""
    never = Failed(reason="not timed: scored only")
    return Row(
        candidate=trial.recipe.name,
        recipe_hash=trial.recipe_hash,
        checkpoint_hash=trial.checkpoint_hash,
        parameters=trial.parameters,
        device="host",
        workload=WORKLOAD,
        phase="decode",
        tokens=64,
        depth=0,
        threads=1,
        engine=trial.engine,
        seconds=never,
        joules=never,
        resident=Measured(samples=(float(trial.resident_bytes),), method="counted"),
        quality=None,
        recipe=trial.recipe,
    )
