"""A choice + limits -> a verdict: which limits it holds, by how much, and how surely."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields

from harness import evidence, stats
from harness.choice import Choice
from harness.errors import BadInput
from harness.evidence import Reading
from harness.table import plain, si, size

BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a choice must hold; None asks nothing. A value at the limit holds it."""

    min_tokens_per_second: float | None = None
    max_memory_bytes: float | None = None
    max_joules_per_token: float | None = None
    max_seconds_to_first_token: float | None = None
    max_seconds_per_training_step: float | None = None
    max_training_memory_bytes: float | None = None
    max_bits_per_byte: float | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and not (math.isfinite(value) and value > 0):
                what = item.name.replace("_", " ")
                raise BadInput(f"{what} must be a number above 0, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A choice judged: `misses` say which limits it breaks and how, `doubts` what is uncertain.

    broken: what each miss is on: "speed", "memory", ...
    shortfall: the factor by which the worst limit is missed; 1 when all hold, inf when unknown
    chance: that every limit holds, by the intervals, as if what they are on were independent
    """

    choice: Choice
    broken: tuple[str, ...]
    misses: tuple[str, ...]
    doubts: tuple[str, ...]
    shortfall: float
    chance: float


@dataclass(frozen=True, slots=True)
class _Check:
    """One limit: what it is on, its field in Limits, the reading it is held against."""

    what: str
    field: str
    reading: Callable[[Choice], Reading | None]
    show: Callable[[float], str]


def judge(choice: Choice, limits: Limits, metric: str, corpus: str) -> Verdict:
    """Hold one choice against every limit, and against the score that ranks."""
    misses: list[tuple[str, str]] = []
    doubts, shortfall, chance = [], 1.0, 1.0
    row, quality = choice.row, choice.quality
    if why := evidence.reason(row.seconds):
        misses.append(("failed run", f"no time: {why}"))
    elif quality is None:
        misses.append(("no score", "no quality: speed only, random weights"))
    elif (quality.metric, quality.corpus) != (metric, corpus):
        found = f"scored by {quality.metric} on {quality.corpus}"
        misses.append(("other score", f"{found}, not {metric} on {corpus}"))
    if misses:
        shortfall, chance = math.inf, 0.0
    for check in _CHECKS:
        limit, reading = getattr(limits, check.field), check.reading(choice)
        if limit is None or (reading is None and misses):
            continue
        if reading is None:
            misses.append((check.what, f"{check.what} unknown, limit {check.show(limit)}"))
            shortfall, chance = math.inf, 0.0
            continue
        least = check.field.startswith("min")
        factor = limit / reading.value if least else reading.value / limit
        chance *= chance_of(reading, factor)
        value = ("~" if reading.mark == "P" else "") + check.show(reading.value)
        interval = ""
        if reading.low < limit < reading.high:
            ends = f"{check.show(reading.low)} to {check.show(reading.high)}"
            interval = f"its interval {ends} straddles the limit"
        if factor > 1:
            text = f"{check.what} {value} {'<' if least else '>'} {check.show(limit)}"
            misses.append((check.what, f"{text} ({interval})" if interval else text))
            shortfall = max(shortfall, factor)
        elif interval:
            doubts.append(f"{check.what} {value} holds {check.show(limit)}, but {interval}")
    return Verdict(
        choice=choice,
        broken=tuple(what for what, _ in misses),
        misses=tuple(text for _, text in misses),
        doubts=(*doubts, *evidence.notes(row)),
        shortfall=shortfall,
        chance=chance,
    )


def chance_of(reading: Reading, factor: float) -> float:
    """That a limit holds which the value misses by this factor (below 1: holds).

    The logarithm is taken for normal; an interval holds 90 % of projections, else 95 %.
    """
    reach = stats.REACH_90 if reading.mark == "P" else stats.REACH_95
    spread = math.log(reading.high / reading.low) / (2 * reach) if reading.low > 0 else 0.0
    if spread <= 0:
        return float(factor <= 1)
    return stats.chance(-math.log(factor), spread)


def merit(verdict: Verdict) -> tuple[float, float, float, str]:
    """Sorts the best first: fewest broken limits by factor, then quality, then latency."""
    quality, seconds = verdict.choice.quality, verdict.choice.seconds
    score = math.inf
    if quality is not None:
        score = -quality.value if quality.metric == "accuracy" else quality.value
    row = verdict.choice.row
    name = f"{row.candidate} {row.device} {row.threads:4d}"
    return verdict.shortfall, score, seconds.value if seconds else math.inf, name


def score(choice: Choice) -> Reading | None:
    """Quality with its 95 % interval, from the standard error."""
    quality = choice.quality
    if quality is None:
        return None
    reach = stats.REACH_95 * quality.standard_error
    value = quality.value
    return Reading(value=value, low=value - reach, high=value + reach, mark="M", source="scored")


def parse_bytes(text: str) -> int:
    """Bytes of "64MiB", "64 MB" or "67108864". Raises BadInput."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].upper() not in BYTES:
        raise BadInput(f"cannot read {text!r} as memory; write it like 64MiB, 64MB or 67108864")
    return round(float(match[1]) * BYTES[match[2].upper()])


_CHECKS = (
    _Check("speed", "min_tokens_per_second", lambda c: c.rate, lambda v: f"{plain(v)} tokens/s"),
    _Check("memory", "max_memory_bytes", lambda c: c.memory, size),
    _Check("energy", "max_joules_per_token", lambda c: c.joules, lambda v: si(v, "J/token")),
    _Check(
        "first token",
        "max_seconds_to_first_token",
        lambda c: c.first_token,
        lambda v: si(v, "s"),
    ),
    _Check(
        "training", "max_seconds_per_training_step", lambda c: c.step, lambda v: si(v, "s a step")
    ),
    _Check("training memory", "max_training_memory_bytes", lambda c: c.step_memory, size),
    _Check("quality", "max_bits_per_byte", score, lambda v: f"{v:.3f} bits per byte"),
    _Check("accuracy", "min_accuracy", score, lambda v: f"{v:.3f}"),
)
