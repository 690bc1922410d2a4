"""Projections of what a fit had not seen -> the errors to tell.

Rows are published measurements; devices are families of SoCs, which are left out together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from harness import intervals, likeness, roofline
from harness.arrays import Floats
from harness.doubts import doubts
from harness.intervals import COVERAGE, Error
from harness.observations import Observation
from harness.roofline import Fit

PHASES = ("decode", "prefill")
READABLE = 10.0  # tokens per second: about as fast as people read
APART = 1.2  # factor between two devices from which their order is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One observation, what a fit that had not seen it projects [s], and its doubts by name."""

    observation: Observation
    seconds: float
    doubts: frozenset[str] = frozenset()

    @property
    def residual(self) -> float:
        """Logarithm of published over projected seconds."""
        return math.log(self.observation.seconds / self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of one phase over rows that the fit had not seen.

    error: median |projected/published - 1| of rates; by_device: median of the devices' medians
    bias: median logarithm of projected over published seconds
    within: share of rows within 10, 20, 30 %; rank: Spearman's, over devices' median rates
    width: median factor of the 90 % intervals; covered: share of rows inside, devices alike
    inside: devices inside, their rows counted as parts of one; chance: two-sided, that so many
    or fewer are inside when 90 % are promised
    """

    phase: str
    which: str  # "all" or "clean"
    rows: int
    devices: int
    error: float
    by_device: float
    bias: float
    within: tuple[float, float, float]
    rank: float
    width: float
    covered: float
    inside: int
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """How often an answer that rests on a decode would have been right.

    readable: reaches 10 tokens/s or not; ordered: of two devices with the same model and format
    whose published rates are 20 % or more apart, which one is faster
    """

    readable: float
    rows: int
    ordered: float
    pairs: int


def errors(left: Sequence[Left], phase: str) -> list[Error]:
    """What intervals are fitted on: not the microcontroller, which every fit extrapolates to."""
    return [
        Error(residual=x.residual, group=x.observation.group, doubts=x.doubts)
        for x in left
        if x.observation.phase == phase and "mcu" not in x.doubts
    ]


def scores(left: Sequence[Left]) -> tuple[Score, ...]:
    """The table of truth: per phase, over all rows and over the clean ones."""
    return tuple(_score(left, phase, which) for phase in PHASES for which in ("all", "clean"))


def decisions(left: Sequence[Left]) -> Decisions:
    """Over the decode rows."""
    rows = [x for x in left if x.observation.phase == "decode"]
    right = [(1 / x.seconds >= READABLE) == (1 / x.observation.seconds >= READABLE) for x in rows]
    ordered = []
    for a, b in combinations(rows, 2):
        published = b.observation.seconds / a.observation.seconds
        if _same_run(a.observation, b.observation) and abs(math.log(published)) > math.log(APART):
            ordered.append((published > 1) == (b.seconds > a.seconds))
    return Decisions(
        readable=float(np.mean(right)) if right else math.nan,
        rows=len(right),
        ordered=float(np.mean(ordered)) if ordered else math.nan,
        pairs=len(ordered),
    )


def after_one(left: Sequence[Left], phase: str, fit: Fit) -> tuple[float, int]:
    """Median error of a row once another of the same device, engine and format was measured.

    Each row counts once, with the median over the rows that could have been measured; and how
    many rows have such another.
    """
    rows = [x for x in left if x.observation.phase == phase]
    found = []
    for x in rows:
        setting = x.observation.setting
        errors = []
        for y in rows:
            if x is y or not _same_place(x.observation, y.observation):
                continue
            one = likeness.miss(y.observation.setting, y.residual)
            shift, _ = likeness.adjust((one,), setting, fit)
            errors.append(abs(math.exp(x.residual - shift) - 1))
        if errors:
            found.append(float(np.median(errors)))
    return (float(np.median(found)) if found else math.nan), len(found)


def repeats(left: Sequence[Left], phase: str) -> tuple[float, int]:
    """By how much two published measurements of the same run on the same SoC differ: median
    |one/other - 1|, and of how many pairs. No projection can be closer to both."""
    runs: dict[tuple[object, ...], list[float]] = {}
    for x in left:
        o = x.observation
        if o.phase == phase and not o.distrusted:
            work, setting = o.setting.work, o.setting
            about = (o.group, o.model.lower(), o.form.lower(), setting.engine, setting.threads)
            # what is computed beside the weights tells the depth of the context
            runs.setdefault((*about, work.tokens, work.others), []).append(o.seconds)
    pairs = [pair for seconds in runs.values() for pair in combinations(seconds, 2)]
    errors = [math.expm1(abs(math.log(a / b))) for a, b in pairs]
    return (float(np.median(errors)) if errors else math.nan), len(errors)


def halves(left: Sequence[Left], phase: str) -> Floats:
    """Half-width (logarithm) of each row's interval, from the errors of the other devices."""
    rows = [x for x in left if x.observation.phase == phase]
    fitted: dict[str, Mapping[str, float]] = {}
    for name in {x.observation.group for x in rows}:
        others = [x for x in rows if x.observation.group != name]
        fitted[name] = intervals.fit(errors(others, phase))
    return np.array([intervals.half(fitted[x.observation.group], x.doubts) for x in rows])


def _score(left: Sequence[Left], phase: str, which: str) -> Score:
    from scipy.stats import binomtest  # noqa: PLC0415  (a second that others need not wait)

    rows = [x for x in left if x.observation.phase == phase]
    half = halves(left, phase)
    chosen = np.array([which == "all" or not x.observation.caveat for x in rows], bool)
    residuals = np.array([x.residual for x in rows])[chosen]
    half = half[chosen]
    groups = np.array([x.observation.group for x in rows])[chosen]
    error = np.abs(np.exp(residuals) - 1)  # projected over published rate, less one
    names = sorted(set(groups.tolist()))
    medians = [float(np.median(error[groups == n])) for n in names]
    published = np.log([x.observation.seconds for x in rows])[chosen]
    by_group = np.array(
        [
            (np.median(published[groups == n]), np.median((published - residuals)[groups == n]))
            for n in names
        ]
    )
    held = np.abs(residuals) <= half
    covered = [float(np.mean(held[groups == n])) for n in names]
    inside = round(sum(covered))

    def share(limit: float) -> float:
        return float(np.mean(error <= limit))

    return Score(
        phase=phase,
        which=which,
        rows=len(residuals),
        devices=len(names),
        error=float(np.median(error)),
        by_device=float(np.median(medians)),
        bias=float(-np.median(residuals)),
        within=(share(0.1), share(0.2), share(0.3)),
        rank=_spearman(*by_group.T),
        width=math.exp(float(np.median(half))),
        covered=float(np.mean(covered)),
        inside=inside,
        chance=float(binomtest(inside, len(names), COVERAGE).pvalue),
    )


def _same_place(a: Observation, b: Observation) -> bool:
    """One device, and the same engine and format as their authors write them."""
    same = a.setting.device.name == b.setting.device.name and a.form.lower() == b.form.lower()
    return same and a.engine.partition("(")[0].strip() == b.engine.partition("(")[0].strip()


def _same_run(a: Observation, b: Observation) -> bool:
    """The same model in the same family of formats, on two devices."""
    if a.group == b.group or a.model.lower() != b.model.lower():
        return False
    return roofline.family("format", a.form) == roofline.family("format", b.form)


def _spearman(a: Floats, b: Floats) -> float:
    if len(a) < 3:
        return math.nan
    first, second = (np.argsort(np.argsort(x)).astype(float) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def left_of(observation: Observation, seconds: float, fit: Fit) -> Left:
    """A row with what a fit projects for it."""
    found = doubts(observation.setting, fit, observation.notes)
    return Left(observation=observation, seconds=seconds, doubts=frozenset(found))
