"""Projections of what a fit had not seen -> the errors to tell, and the interval to promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.observations import Observation
from harness.roofline import Floats

COVERAGE = 0.9
Names: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of one phase over rows whose SoC the fit had not seen.

    error: median |projected/published - 1|; by_device: median of the devices' medians
    bias: median logarithm of projected over published seconds
    within: share of rows within 10, 20, 30 %; rank: Spearman's, over devices' median rates
    width: factor of the 90 % interval; covered: share of rows (devices weigh alike) inside it
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One observation and what a fit without its SoC projects for it [s]."""

    observation: Observation
    seconds: float

    @property
    def residual(self) -> float:
        """Logarithm of published over projected seconds."""
        return math.log(self.observation.seconds / self.seconds)


def interval(left: Sequence[Left], phase: str) -> tuple[float, float]:
    """Ends of the 90 % interval as logarithms of published over projected seconds.

    Split-conformal over the rows without a caveat, each SoC with the same weight, so that the
    many rows of one do not decide.
    """
    residuals, groups = _residuals(_clean(left), phase)
    if not len(residuals):
        return -math.log(4), math.log(4)
    half = _quantile(np.abs(residuals), groups)
    return -half, half


def scores(left: Sequence[Left]) -> tuple[Score, ...]:
    """The leave-one-out table: per phase, over all rows and over those without a caveat."""
    return tuple(
        _score(left, phase, which) for phase in ("decode", "prefill") for which in ("all", "clean")
    )


def report(left: Sequence[Left]) -> str:
    """The leave-one-out table as text."""
    head = "phase    rows   n  SoCs  error  by SoC  bias   in 10/20/30 %  rank  interval  covered"
    lines = [
        f"{s.phase:8} {s.which:5} {s.rows:3} {s.devices:4}  {s.error:5.1%}  {s.by_device:6.1%} "
        f"{s.bias:+5.2f}   {s.within[0]:3.0%} {s.within[1]:3.0%} {s.within[2]:3.0%}  "
        f"{s.rank:5.2f}   x{s.width:4.2f}    {s.covered:5.0%}"
        for s in scores(left)
    ]
    return "\n".join([head, *lines])


def _score(left: Sequence[Left], phase: str, which: str) -> Score:
    within = left if which == "all" else _clean(left)
    chosen = [x for x in within if x.observation.phase == phase]
    residuals, groups = _residuals(chosen, phase)
    ratio = np.exp(-residuals)  # projected over published seconds
    error = np.abs(1 / ratio - 1)  # of the rate
    names = sorted(set(groups))
    medians = [float(np.median(error[groups == n])) for n in names]
    published = np.array([x.observation.seconds for x in chosen])
    projected = np.array([x.seconds for x in chosen])
    by_group = [
        (np.median(published[groups == n]), np.median(projected[groups == n])) for n in names
    ]

    def share(limit: float) -> float:
        return float(np.mean(error <= limit))

    inside = [_covered(left, chosen, n) for n in names]
    return Score(
        phase=phase,
        which=which,
        rows=len(chosen),
        devices=len(names),
        error=float(np.median(error)),
        by_device=float(np.median(medians)),
        bias=float(-np.median(residuals)),
        within=(share(0.1), share(0.2), share(0.3)),
        rank=_spearman(*np.array(by_group).T),
        width=math.exp(interval(left, phase)[1]),
        covered=float(np.mean(inside)),
    )


def _covered(left: Sequence[Left], chosen: Sequence[Left], name: str) -> float:
    """Share of a group's rows inside the interval that the other groups give."""
    others = [x for x in left if x.observation.group != name]
    own = [x for x in chosen if x.observation.group == name]
    low, high = interval(others, own[0].observation.phase)
    return float(np.mean([low <= x.residual <= high for x in own]))


def _clean(left: Sequence[Left]) -> list[Left]:
    return [x for x in left if not x.observation.distrusted]


def _quantile(sizes: Floats, groups: Names) -> float:
    """Weighted quantile with equal weight per group, its level raised for few groups."""
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weights = 1 / counts[inverse]
    order = np.argsort(sizes)
    cumulative = np.cumsum(weights[order]) / weights.sum()
    level = min(1.0, COVERAGE * (len(names) + 1) / len(names))
    return float(sizes[order][min(int(np.searchsorted(cumulative, level)), len(sizes) - 1)])


def _residuals(left: Sequence[Left], phase: str) -> tuple[Floats, Names]:
    chosen = [x for x in left if x.observation.phase == phase]
    return (
        np.array([x.residual for x in chosen]),
        np.array([x.observation.group for x in chosen]),
    )


def _spearman(a: Floats, b: Floats) -> float:
    if len(a) < 3:
        return math.nan
    first, second = (np.argsort(np.argsort(x)).astype(float) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def brief(score: Score) -> str:
    """One score as a sentence."""
    return (
        f"{score.phase} {score.which}: {score.rows} rows of {score.devices} SoCs, "
        f"median error {score.error:.1%}, bias {score.bias:+.2f}, "
        f"interval x{score.width:.2f} covers {score.covered:.0%}"
    )
