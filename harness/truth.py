"""Leave-one-out projections -> the table of truth: how wrong they are, on every kind of unseen.

Errors are of rates: |projected/published - 1|. See scores.py for what each column means.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import joules, scores
from harness.errors import BadInput
from harness.joules import Compared
from harness.observations import Observation
from harness.roofline import Fit
from harness.scores import Left, Score
from harness.table import plain

GROWTH = 1.1  # of a median error, from which the check fails
SLACK = 0.005  # of an error below which growth is rounding
COLUMNS = (
    "left_out", "phase", "rows", "which", "devices", "median_error", "median_by_device", "bias",
    "within_10", "within_20", "within_30", "rank", "interval_factor", "covered", "inside", "chance",
)  # fmt: skip
LEGEND = (
    "Error: median of |projected/published - 1|; by device: median of devices' medians. "
    "Bias: median logarithm of projected over published seconds. Interval: median factor "
    "of the 90 % interval up or down; inside: devices that it holds, a device with many "
    "rows counting once, and the chance of so many or fewer by luck. Clean rows: SoC, "
    "memory and variant known, 0.2 B parameters or more, prompts of 64 tokens or more, no "
    "throttling, no early firmware, no BLAS or matrix units; all rows: those too."
)
UNSEEN: Mapping[str, Callable[[Observation], str]] = {
    "SoC": lambda o: o.group,
    "engine": lambda o: o.setting.engine,
    "model": lambda o: o.model.lower(),
}
OURS: Mapping[str, Callable[[Observation], str]] = {  # of rows that our engine made
    "size": lambda o: o.model,
    "format": lambda o: o.form,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Left-out rows by what was left out, those of our engine too, and the fit that knows all."""

    left: Mapping[str, Sequence[Left]]  # "SoC", "engine", "model"
    own: Mapping[str, Sequence[Left]]  # "size", "format"; empty where none was measured
    fit: Fit
    power: Sequence[Compared] = ()  # published watts and joules beside the energy model's


def rows(truth: Truth) -> list[dict[str, str]]:
    """The table, a line a score; of our own engine only how many rows and their error."""
    found = [
        _row(unseen, score) for unseen, left in truth.left.items() for score in scores.scores(left)
    ]
    for unseen, left in truth.own.items():
        for phase, (error, count) in own_errors(left).items():
            line = {"left_out": f"our {unseen}", "phase": phase, "which": "own"}
            line |= {"rows": str(count), "median_error": f"{error:.4f}"}
            found.append(dict.fromkeys(COLUMNS, "") | line)
    return found


def as_csv(truth: Truth) -> str:
    """The table for programs; `check` reads it again."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(truth))
    return out.getvalue()


def check(now: Sequence[Mapping[str, str]], before: Path) -> list[str]:
    """Where a median error has grown by more than a tenth since `before`; empty when nowhere.

    Only what both tables have is compared. Raises BadInput when there is nothing to compare.
    """
    try:
        with before.open(encoding="utf-8", newline="") as file:
            known = {_place(row): float(row["median_error"]) for row in csv.DictReader(file)}
        found = {_place(row): float(row["median_error"]) for row in now}
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{before} is no table of truth: {error!r}") from None
    both = [place for place in found if place in known]
    if not both:
        raise BadInput(f"{before} has no row in common with what was found")
    return [
        f"{' '.join(place)}: median error {found[place]:.1%}, was {known[place]:.1%}"
        for place in both
        if found[place] > GROWTH * known[place] + SLACK
    ]


def markdown(truth: Truth, command: str) -> str:
    """The page: the table, the decisions, one measurement, our engine, and the worst rows."""
    return "\n".join(
        [
            "# How wrong the projections are",
            "",
            f"Made by `{command}`. Published measurements of language models on CPUs "
            "(`harness/calibration/published.csv`, confidence A and B), each projected by a fit "
            "from a cold start that has not seen its SoC family, its engine, or its model.",
            "",
            *table(truth.left),
            "",
            LEGEND,
            "",
            *findings(truth),
            "",
            "## Power and energy",
            "",
            *joules.lines(truth.power),
            "",
            "Error and bias: modelled over published. So few figures, all of boards or mini PCs, "
            "show that the model is not far off at their wall; they say nothing of phones and "
            "laptops, whose power is an estimate, flagged as one. Figures at the wall are mostly "
            "peaks during a chat; a processor counts but itself; rails in a vendor's software are "
            "no power of a machine and are left out.",
            "",
            "## The twenty worst rows, and what probably explains them",
            "",
            *worst(truth.left["SoC"], 20),
            "",
        ]
    )


def short(truth: Truth) -> str:
    """For a front page: devices left out, and what follows for decisions."""
    return "\n".join([*table({"SoC": truth.left["SoC"]}), "", LEGEND, "", *findings(truth)])


def findings(truth: Truth) -> list[str]:
    """What the table leaves open, as a list."""
    left = truth.left["SoC"]
    decided = scores.decisions(left)
    once = _told({phase: scores.after_one(left, phase, truth.fit) for phase in scores.PHASES})
    noise = _told({phase: scores.repeats(left, phase) for phase in scores.PHASES})
    return [
        f"- **After one measurement** of the same device, engine and format: {once}. Two published "
        f"measurements of one run on one SoC differ, too: {noise}.",
        f"- **Reaches {scores.READABLE:g} tokens/s or not:** right in {decided.readable:.1%} "
        f"of {decided.rows} rows.",
        f"- **Which of two devices is faster** (same model and format, 20 % or more apart): "
        f"right in {decided.ordered:.1%} of {decided.pairs} pairs.",
        *(f"- **Our engine** on the host of the sweep, {line}." for line in own(truth.own)),
    ]


def own(left: Mapping[str, Sequence[Left]]) -> list[str]:
    """Errors on rows of our own engine, a line for what was left out of the fit."""
    return [
        f"each {unseen} left out in turn: {_told(own_errors(rows))}"
        for unseen, rows in left.items()
    ]


def own_errors(left: Sequence[Left]) -> dict[str, tuple[float, int]]:
    """Median error of rates and number of rows, by phase."""
    found = {}
    for phase in dict.fromkeys(x.observation.phase for x in left):
        errors = [abs(math.expm1(x.residual)) for x in left if x.observation.phase == phase]
        found[str(phase)] = float(np.median(errors)), len(errors)
    return found


def table(left: Mapping[str, Sequence[Left]]) -> list[str]:
    """The scores as lines of Markdown, by what was left out."""
    lines = [
        "| left out | phase | rows | n | devices | error | by device | bias | in 10 / 20 / 30 % "
        "| rank | interval | inside |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for unseen, rows in left.items():
        for s in scores.scores(rows):
            within = " / ".join(f"{share:.0%}" for share in s.within)
            lines.append(
                f"| {unseen} | {s.phase} | {s.which} | {s.rows} | {s.devices} | {s.error:.1%} "
                f"| {s.by_device:.1%} | {s.bias:+.2f} | {within} | {s.rank:.2f} | x{s.width:.2f} "
                f"| {s.inside} of {s.devices} (p {s.chance:.2f}) |"
            )
    return lines


def worst(left: Sequence[Left], count: int) -> list[str]:
    """The rows that are furthest off, as lines of Markdown."""
    lines = [
        "| device | model | format | engine | threads | phase | published | projected | likely |",
        "|---|---|---|---|--:|---|--:|--:|---|",
    ]
    for x in sorted(left, key=lambda x: -abs(x.residual))[:count]:
        o = x.observation
        tokens = o.setting.work.tokens
        lines.append(
            f"| {o.setting.device.name} | {o.model} | {o.form} | {o.engine} | {o.setting.threads} "
            f"| {o.phase} | {plain(tokens / o.seconds)} | {plain(tokens / x.seconds)} "
            f"| {likely(x, left)} |"
        )
    return lines


def likely(x: Left, left: Sequence[Left]) -> str:
    """Why a row is probably off: what is said of it, its device, its engine and format, or luck."""
    o = x.observation
    if o.caveat:
        return o.caveat
    word = "slower" if x.residual > 0 else "faster"
    others = [y for y in left if y is not x and y.observation.phase == o.phase]
    here = [y.residual for y in others if y.observation.group == o.group]
    if len(here) >= 2 and float(np.median(here)) / x.residual > 0.5:
        return f"all of this device is {word} than its facts say"
    same = [
        y.residual
        for y in others
        if y.observation.setting.engine == o.setting.engine and y.observation.form == o.form
    ]
    if len(same) >= 2 and float(np.median(same)) / x.residual > 0.5:
        return f"this engine with this format is {word} on other devices too"
    assumed = [note.partition(":")[0] for note in o.notes if "not stated" in note]
    if assumed:
        return ", ".join(assumed)
    return f"unexplained: {word} than its neighbours"


def _told(errors: Mapping[str, tuple[float, int]]) -> str:
    return "; ".join(f"{phase} {error:.1%} (n {n})" for phase, (error, n) in errors.items())


def _row(unseen: str, s: Score) -> dict[str, str]:
    numbers = (s.error, s.by_device, s.bias, *s.within, s.rank, s.width, s.covered)
    cells = [unseen, s.phase, str(s.rows), s.which, str(s.devices)]
    cells += [*(f"{value:.4f}" for value in numbers), str(s.inside), f"{s.chance:.3f}"]
    return dict(zip(COLUMNS, cells, strict=True))


def _place(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["left_out"], row["phase"], row["which"]
