"""Trials -> one CSV for programs, a line a trial."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping

from harness.study import plan
from harness.study.frame import Study, Trial

FIELDS = (
    *("protocol", "corpus", "corpus_hash", "trained_on", "metric", "value", "standard_error"),
    *("tokens_scored", "parameters", "resident_bytes", "training_steps", "tokens", "characters"),
    *("finetuning_tokens", "teacher", "teacher_tokens", "learning_rate", "rates_corpus", "engine"),
    *("recipe_hash", "checkpoint_hash", "kernel_hash", "training_seconds", "scoring_seconds"),
    *("commit", "dirty", "machine", "started", "failed"),
)


def as_csv(study: Study, trials: Mapping[str, Trial]) -> str:
    """Every trial with the arm and step it belongs to; what is not known is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", "step", "candidate", "seed", *FIELDS, "nats", "rates_tried", "formats"])
    for arm, step, trial in _every(study, trials):
        values = [getattr(trial, name) for name in FIELDS]
        values += [trial.figures.get("nats"), " ".join(map(str, trial.rates_tried))]
        values += [" ".join(f"{form}:{count}" for form, count in trial.formats.items())]
        writer.writerow([arm, step, trial.recipe.name, trial.seed, *values])
    return out.getvalue()


def _every(study: Study, trials: Mapping[str, Trial]) -> Iterator[tuple[str, str, Trial]]:
    places = [
        (arm.name, step, plan.point(study, arm, step, protocol, seed))
        for arm in study.arm
        for step in ("", *arm.steps)
        for protocol in plan.protocols_of(arm, step)
        for seed in plan.seeds(arm.seeds)
    ]
    places += [
        (f"tuning {t.name}", "", plan.tuning_point(t, rate, seed))
        for t in study.tuning
        for rate in t.rates
        for seed in plan.seeds(t.seeds)
    ]
    places += [
        (timing.name, "", plan.timing_point(study, timing, seed))
        for timing in study.timing
        for seed in plan.seeds(timing.seeds)
    ]
    for arm, step, point in places:
        if (trial := trials.get(plan.key(point))) is not None:
            yield arm, step, trial
