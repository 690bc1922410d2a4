"""Standings -> the figures of a study; one that lacks its trials is left out, and said so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from harness import plot
from harness.errors import HarnessError
from harness.plot import Curve, Spot
from harness.plot.tradeoff import PLAIN
from harness.stats import REACH_95
from harness.study import claims
from harness.study.frame import Study
from harness.study.standings import Standing
from harness.study.tables import resident

Unit = Literal["B", "s", "J"]
CURVES = {  # by the name of the curve: file, x, y, whether x is logarithmic
    "position": ("loss_by_position", "position in the text", "nats per token", True),
    "distance": ("recall_by_distance", "tokens between pair and question", "accuracy", False),
    "pairs": ("recall_by_pairs", "pairs in an example", "accuracy", True),
    "length": ("copy_by_length", "symbols of a string", "accuracy", True),
    "difficulty": ("active_by_difficulty", "loss of the token [nats]", "active fraction", False),
}


def figures(study: Study, found: Sequence[Standing], folder: Path) -> tuple[list[Path], list[str]]:
    """The paths written, and a line for each figure that could not be drawn."""
    makers: list[Callable[[], Path]] = []
    if found:
        makers += _tradeoffs(study, found, folder)
    for name in CURVES:
        makers.append(lambda name=name: _curves(found, name, folder))  # type: ignore[misc]
    makers.append(lambda: _passage(found, folder))
    made, missed = [], []
    for make in makers:
        try:
            made.append(make())
        except HarnessError as error:
            missed.append(f"a figure was left out: {error}")
    return made, missed


def _tradeoffs(study: Study, found: Sequence[Standing], folder: Path) -> list[Callable[[], Path]]:
    """Of the task that the study begins with, by the protocol its arms are compared in.

    Ablations, all but the first of a ranking, are left to their table.
    """
    first = found[0]
    ablated = {name for ranking in study.ranking for name in ranking.arms[1:]}
    here = [p for p in found if (p.task, p.protocol) == (first.task, first.protocol)]
    points = [p for p in here if p.arm not in ablated]
    score = f"{first.metric}, {first.task}"
    memory = {"": [_spot(p, _exact(resident(p))) for p in points]}

    def make(panels: dict[str, list[Spot]], name: str, cost: str, unit: Unit) -> Path:
        return plot.tradeoff_figure(
            panels,
            folder / f"{name}.png",
            cost=cost,
            quality=score,
            unit=unit,
            better=first.better,
        )

    return [
        lambda: make(memory, "quality_bytes", "resident memory", "B"),
        lambda: make(_on_devices(study, points, "seconds"), "quality_time", "time a token", "s"),
        lambda: make(_on_devices(study, points, "joules"), "quality_energy", "energy a token", "J"),
    ]


def _on_devices(study: Study, points: Sequence[Standing], what: str) -> dict[str, list[Spot]]:
    panels: dict[str, list[Spot]] = {}
    for device in study.devices:
        title = f"{device} (projected)"
        panels[title] = []
        for point in points:
            known = point.costs.get(device)
            reading = known and (known.seconds if what == "seconds" else known.joules)
            if reading:
                cost = (reading.value, reading.low, reading.high)
                panels[title].append(_spot(point, cost, projected=True))
    return panels


def _exact(value: float) -> tuple[float, float, float]:
    return value, value, value


def _spot(point: Standing, cost: tuple[float, float, float], projected: bool = False) -> Spot:
    score = point.score
    value = score.value or 0.0
    low = value if score.low is None else score.low
    high = value if score.high is None else score.high
    return Spot(
        x=cost,
        y=(value, low, high),
        side=point.side,
        step=point.step or PLAIN,
        projected=projected,
    )


def _curves(found: Sequence[Standing], name: str, folder: Path) -> Path:
    """A panel a task, a line an arm and protocol."""
    file, x, y, logarithmic = CURVES[name]
    panels: dict[str, list[Curve]] = {}
    windows: dict[str, float] = {}
    several = len({p.protocol for p in found if averaged(p, name)}) > 1
    for point in found:
        points = averaged(point, name)
        if not points:
            continue
        label = f"{point.name}, {point.protocol}" if several else point.name
        curve = Curve(name=label, group=point.arm, kind=point.protocol, points=points)
        panels.setdefault(point.task, []).append(curve)
        windows[point.task] = float(point.trial.recipe.shape.context)
    trained = windows if name == "position" else None
    return plot.curves_figure(
        panels,
        folder / f"{file}.png",
        x=x,
        y=y,
        logarithmic=logarithmic,
        trained=trained,
        share=y == "accuracy",
    )


def _passage(found: Sequence[Standing], folder: Path) -> Path:
    """Of the first arm that was asked for its activity."""
    known = next((p for p in found if "passage" in p.trial.curves), None)
    points = known.trial.curves["passage"] if known else ()
    letters, shares, nats = ([point[i] for point in points] for i in range(3))
    text = bytes(int(letter) for letter in letters).decode("latin-1")
    return plot.passage_figure(
        text, shares, nats, folder / "active_in_text.png", known.name if known else ""
    )


def averaged(point: Standing, name: str) -> list[tuple[float, float, float, float]]:
    """A curve's mean over seeds with its interval; with one seed, its own standard error."""
    by_x: dict[float, list[tuple[float, float]]] = {}
    for trial in point.trials.values():
        for x, value, error in trial.curves.get(name, ()):
            by_x.setdefault(x, []).append((value, error))
    made = []
    for x, known in sorted(by_x.items()):
        found = claims.interval([value for value, _ in known])
        if found.value is None:
            continue
        half = REACH_95 * known[0][1] if found.high is None else found.high - found.value
        if math.isfinite(half):
            made.append((x, found.value, found.value - half, found.value + half))
    return made
