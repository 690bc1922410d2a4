"""Times of base and of now, in pairs -> pass, fail or inconclusive.

A pair is two samples next to each other in time, so its ratio is free of what slows the machine
for longer than that. A generation is the pairs of two processes: within it the luck of code and
memory placement is constant, so only several generations can tell that luck from a change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from harness import stats

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
Pair: TypeAlias = tuple[float, float]  # seconds of one call: base, now
MOST_BATCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What counts as slower.

    ratio, seconds: both must be reached by the median; a difference below is never a failure
    chance: largest accepted probability of such signs by chance alone
    agreeing: share of generations whose own median must reach `ratio`
    hidden: where this slowdown lies within the interval of the median, a pass would mean nothing
    """

    ratio: float = 1.10
    seconds: float = 2e-6
    chance: float = 1e-3
    agreeing: float = 0.75
    hidden: float = 1.25

    def __post_init__(self) -> None:
        if not 1 < self.ratio <= self.hidden or self.seconds < 0:
            raise ValueError(f"limits need 1 < ratio <= hidden and seconds >= 0, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """ratio: median of now over base, with its 95 % interval; difference [s a call]; p: two-sided,
    of the sign test; why: the reason where the outcome is inconclusive."""

    outcome: Outcome
    ratio: float
    low: float
    high: float
    difference: float
    p: float
    why: str = ""


def judge(generations: Sequence[Sequence[Pair]], limits: Limits) -> Verdict:
    """The verdict on at least one pair of positive times. Raises ValueError without any."""
    pairs = [pair for generation in generations for pair in generation]
    ratios = [now / base for base, now in pairs]
    ratio, difference = stats.median(ratios), stats.median([now - base for base, now in pairs])
    low, high, _ = stats.median_interval(ratios)
    p = sign_test(pairs)
    medians = [stats.median([now / base for base, now in g]) for g in generations if g]
    agreeing = sum(middle >= limits.ratio for middle in medians) / len(medians)
    outcome, why = _decide(
        large=ratio >= limits.ratio and difference >= limits.seconds,
        p=p,
        agreeing=agreeing,
        hides=high >= limits.hidden
        and (high - 1) * stats.median([base for base, _ in pairs]) >= limits.seconds,
        limits=limits,
    )
    return Verdict(
        outcome=outcome, ratio=ratio, low=low, high=high, difference=difference, p=p, why=why
    )


def settled(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The outcome of batches measured independently so far; None asks for another one.

    A failure needs two in a row. A pass needs one, or two in a row where a failure came before.
    """
    *before, last = outcomes
    if last == "pass" and "fail" not in before:
        return "pass"
    if last != "inconclusive" and before and before[-1] == last:
        return last
    return "inconclusive" if len(outcomes) >= MOST_BATCHES else None


def sign_test(pairs: Sequence[Pair]) -> float:
    """Two-sided p-value that neither side of a pair tends to be larger (Conover 1999, 3.4)."""
    slower = sum(now > base for base, now in pairs)
    faster = sum(now < base for base, now in pairs)
    count, most = slower + faster, max(slower, faster)
    tail = sum(math.comb(count, k) for k in range(most, count + 1))
    p: float = 2 * tail / 2**count
    return min(1.0, p)


def _decide(
    *, large: bool, p: float, agreeing: float, hides: bool, limits: Limits
) -> tuple[Outcome, str]:
    if large and p > limits.chance:
        return "inconclusive", "not significant"
    if large and agreeing < limits.agreeing:
        return "inconclusive", "processes disagree"
    if large:
        return "fail", ""
    return ("inconclusive", "too noisy") if hides else ("pass", "")
