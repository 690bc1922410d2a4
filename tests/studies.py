"""Small studies and made-up trials for tests."""

from __future__ import annotations

from pathlib import Path

from harness.study import plan, rows
from harness.study.frame import Study, Trial

TEXT = """
title = "Does the better algorithm win?"
devices = ["rpi5"]

[[arm]]
name = "attention"
candidate = "attention:nano"
corpus = "characters"
tokens = 2000
seeds = 3
set = {context = 64, batch = 4}
steps = ["int8"]

[[arm]]
name = "mcsd"
candidate = "mcsd:nano"
corpus = "characters"
tokens = 2000
seeds = 3
set = {context = 64, batch = 4, hidden = 304}
steps = ["int8"]

[[tuning]]
name = "mcsd"
candidate = "mcsd:nano"
corpus = "characters-tuning"
tokens = 1000
rates = [1e-3, 3e-3]

[[timing]]
name = "pace"
ours = "mcsd"
theirs = "attention"
seeds = 2
rounds = 3

[[claim]]
claim = "MCSD against the Transformer"
value = "mcsd - attention"
bar = "<= -0.06"

[[claim]]
claim = "int8 costs nothing"
value = "mcsd@int8 - mcsd"
bar = "<= 0.001"

[[line]]
value = "mcsd - attention"
wins = "MCSD wins by {size} ({least} to {most}, {seeds} seeds)."
loses = "MCSD loses by {size}."
unresolved = "Nobody can tell: {value}."

[[ranking]]
title = "both"
arms = ["mcsd", "attention"]
source = "a paper"
"""


def trial(point: plan.Point, nats: float, **changes: object) -> Trial:
    """A made-up result of a point."""
    known = dict(
        recipe=point.recipe, recipe_hash="r", seed=point.recipe.seed, protocol=point.protocol,
        corpus=point.recipe.corpus, corpus_hash="c", trained_on="c", metric="bits per byte",
        value=nats / 0.6931471805599453, figures={"nats": nats}, parameters=800_000,
        resident_bytes=3_000_000, tokens=2048, checkpoint_hash=f"w{point.recipe.seed}{nats}",
        learning_rate=point.recipe.learning_rate, formats={"f32": 800_000},
    )  # fmt: skip
    return Trial(**{**known, **changes})


def stored(study: Study, folder: Path, losses: dict[str, tuple[float, ...]]) -> None:
    """The same as files below a folder of rows."""
    known = trials(study, losses)
    for point in plan.points(study):
        if (found := known.get(plan.key(point))) is not None:
            rows.write(folder, point, found)


def trials(study: Study, losses: dict[str, tuple[float, ...]]) -> dict[str, Trial]:
    """Trials of arms given as "arm" or "arm@step", with a loss for each seed in turn."""
    arms = {arm.name: arm for arm in study.arm}
    found = {}
    for name, values in losses.items():
        arm, _, step = name.partition("@")
        for seed, nats in zip(plan.seeds(arms[arm].seeds), values, strict=False):
            point = plan.point(study, arms[arm], step, "windows", seed)
            small = dict(resident_bytes=900_000, formats={"int8": 800_000}) if step else {}
            found[plan.key(point)] = trial(point, nats, **small)
    return found
