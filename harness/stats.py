"""Samples -> a median with its interval, a p90, a verdict on how steady they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

P90_NEEDS = 10  # samples; below that the ninth decile is a guess about the largest one
INTERVAL_NEEDS = 6  # below that no pair of samples encloses the median with 95 % confidence
# pyperf calls a benchmark unstable at these (https://pyperf.readthedocs.io, `pyperf check`)
UNSTEADY_SPREAD = 0.10  # standard deviation over mean
UNSTEADY_EXTREME = 0.50  # distance of the largest sample from the median
REACH_90, REACH_95 = 1.645, 1.96  # standard deviations of a normal distribution that hold so much


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a list of samples says, in the unit of the samples.

    low, high:  95 % interval of the median; the whole range where `interval_note` says so
    p90:        None where `p90_note` says why
    spread:     standard deviation over mean
    flags:      why the number is shaky; empty when it is steady
    """

    count: int
    median: float
    low: float
    high: float
    interval_note: str
    p90: float | None
    p90_note: str
    spread: float
    flags: tuple[str, ...]


def summary(samples: Sequence[float]) -> Summary:
    """Median, interval, p90 and verdict of at least one sample. Raises ValueError on none."""
    low, high, note = median_interval(samples)
    return Summary(
        count=len(samples),
        median=median(samples),
        low=low,
        high=high,
        interval_note=note,
        p90=p90(samples),
        p90_note="" if len(samples) >= P90_NEEDS else _too_few(samples, "p90", P90_NEEDS),
        spread=spread(samples),
        flags=flags(samples),
    )


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two middle ones."""
    ordered = _ordered(samples)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def p90(samples: Sequence[float]) -> float | None:
    """The ninth decile, interpolated between samples; None below 10 of them.

    Hyndman & Fan 1996, type 7, as NumPy's default.
    """
    ordered = _ordered(samples)
    if len(ordered) < P90_NEEDS:
        return None
    position = 0.9 * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def median_interval(samples: Sequence[float]) -> tuple[float, float, str]:
    """(low, high, note): at least 95 % confidence for the median, between two order statistics.

    Exact for any distribution of independent samples (sign test; Conover 1999, section 3.2).
    Below 6 samples it is their range, and the note says so.
    """
    ordered = _ordered(samples)
    count = len(ordered)
    if count < INTERVAL_NEEDS:
        return ordered[0], ordered[-1], _too_few(samples, "a 95 % interval", INTERVAL_NEEDS)
    if count >= 1000:  # the binomial is normal to three digits, and 2^-n nears underflow
        k = math.floor(count / 2 - 0.98 * math.sqrt(count))
    else:
        k, weight = 0, 2.0**-count
        tail = weight  # the chance that at most k samples lie below the median
        while tail <= 0.025:
            k += 1
            weight *= (count - k + 1) / k
            tail += weight
    return ordered[k - 1], ordered[count - k], ""


def spread(samples: Sequence[float]) -> float:
    """Standard deviation over mean; 0 for one sample or a zero mean."""
    mean = math.fsum(samples) / len(samples)
    if len(samples) < 2 or mean == 0:
        return 0.0
    variance = math.fsum((s - mean) ** 2 for s in samples) / (len(samples) - 1)
    return math.sqrt(variance) / abs(mean)


def flags(samples: Sequence[float]) -> tuple[str, ...]:
    """Short reasons to doubt the median: "spread 14 %", "slowest +63 %", "drift +8 %"."""
    found = []
    middle = median(samples)
    if (ratio := spread(samples)) >= UNSTEADY_SPREAD:
        found.append(f"spread {100 * ratio:.0f} %")
    if middle > 0 and max(samples) / middle - 1 >= UNSTEADY_EXTREME:
        found.append(f"slowest +{100 * (max(samples) / middle - 1):.0f} %")
    if drift := _drift(samples):
        found.append(f"drift {100 * drift:+.0f} %")
    return tuple(found)


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value that neither list tends to be larger (Mann & Whitney 1947).

    1 when every sample of both is the same number.
    """
    from scipy.stats import mannwhitneyu  # noqa: PLC0415  heavy, and only comparisons need it

    if not first or not second:
        raise ValueError("a comparison needs samples on both sides")
    if len({*first, *second}) == 1:
        return 1.0
    return float(mannwhitneyu(first, second, alternative="two-sided").pvalue)


def _drift(samples: Sequence[float]) -> float:
    """Relative change from the first half to the second where their intervals part, else 0."""
    half = len(samples) // 2
    if half < INTERVAL_NEEDS:
        return 0.0
    early, late = samples[:half], samples[-half:]
    early_low, early_high, _ = median_interval(early)
    late_low, late_high, _ = median_interval(late)
    change = median(late) / median(early) - 1 if median(early) else 0.0
    apart = late_low > early_high or early_low > late_high
    return change if apart and abs(change) >= 0.05 else 0.0


def _too_few(samples: Sequence[float], what: str, needed: int) -> str:
    return f"n = {len(samples)}; {what} needs {needed}"


def _ordered(samples: Sequence[float]) -> list[float]:
    if not samples:
        raise ValueError("no samples")
    return sorted(samples)


def chance(lead: float, deviation: float) -> float:
    """That a normal variable of this mean and standard deviation, which is not 0, is above 0."""
    return 0.5 * math.erfc(-lead / (deviation * math.sqrt(2)))
