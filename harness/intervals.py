"""Errors of what a fit had not seen + doubts -> the 90 % interval of a point.

    half-width (logarithm) = quantile x scale,  log scale = base + sum of what its doubts add

The scale is fitted to the sizes of left-out errors, every SoC with the same weight; the quantile
is then the split-conformal one of error over scale. A doubt never narrows an interval, and one
that no left-out row has adds UNSEEN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Floats

COVERAGE = 0.9
RIDGE = 0.3  # of what a doubt adds, in SoCs: few of them cannot widen an interval by much
UNSEEN = math.log(1.35)
WIDEST = math.log(20.0)
SMALLEST = 0.03  # errors below are luck [logarithm]
Names: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """One left-out row: logarithm of published over projected seconds, SoC and doubts."""

    residual: float
    group: str
    doubts: frozenset[str]


def fit(errors: Sequence[Error]) -> Mapping[str, float]:
    """What `half` needs: logarithms, "base" and one for each doubt seen."""
    from scipy.optimize import minimize  # noqa: PLC0415  (0.3 s that reading a fit spares)

    if not errors:
        return {"base": math.log(math.log(4))}
    names = sorted({name for error in errors for name in error.doubts})
    sizes = np.maximum([abs(error.residual) for error in errors], SMALLEST)
    groups = np.array([error.group for error in errors])
    flags = np.array([[name in error.doubts for name in names] for error in errors], float)
    weights = _balanced(groups)

    def loss(x: Floats) -> tuple[float, Floats]:
        """Laplace likelihood of the sizes, and its slope."""
        scale = x[0] + flags @ x[1:]
        ratio = sizes * np.exp(-scale)
        slope = weights * (1 - ratio)
        value = float(weights @ (scale + ratio) + RIDGE * (x[1:] ** 2).sum() / 2)
        inner = flags.T @ slope + RIDGE * x[1:]
        return value, np.concatenate([[slope.sum()], inner])

    start = np.zeros(1 + len(names))
    bounds = [(None, None), *[(0.0, math.log(4))] * len(names)]
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    scale = found[0] + flags @ found[1:]
    reach = quantile(sizes * np.exp(-scale), groups)
    added = {name: round(float(x), 4) for name, x in zip(names, found[1:], strict=True)}
    return {"base": round(float(found[0] + math.log(reach)), 4), **added}


def half(fitted: Mapping[str, float], doubts: Iterable[str]) -> float:
    """The logarithm of the factor by which seconds may be off, with 90 % confidence."""
    added = sum(fitted.get(name, UNSEEN) for name in doubts)
    return min(math.exp(fitted["base"] + added), WIDEST)


def quantile(sizes: Floats, groups: Names) -> float:
    """Weighted quantile with equal weight per group, its level raised for few groups."""
    weights = _balanced(groups)
    order = np.argsort(sizes)
    cumulative = np.cumsum(weights[order]) / weights.sum()
    count = len(set(groups.tolist()))
    level = min(1.0, COVERAGE * (count + 1) / count)
    return float(sizes[order][min(int(np.searchsorted(cumulative, level)), len(sizes) - 1)])


def _balanced(groups: Names) -> Floats:
    """One over the rows of a group."""
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weights: Floats = 1 / counts[inverse]
    return weights
