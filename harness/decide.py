"""Rows + limits -> which candidate on which device, and why not the others."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from harness import evidence
from harness.choice import Choice, choices
from harness.errors import BadInput, UnknownName
from harness.evidence import Reading
from harness.pareto import measured_first
from harness.records import Row
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Choices that hold every limit, best first, and the rest with their reasons.

    ranked: measured choices first, then projected ones, unless `together` was asked for
    nearest: where nothing holds the limits, the choice that misses by the smallest factor
    measure_first: what would tell most about the order of the first two, "" when nothing would
    """

    limits: Limits
    depth: int
    metric: str  # the quality that ranks
    corpus: str
    together: bool
    ranked: tuple[Verdict, ...]
    rejected: tuple[Verdict, ...]
    nearest: Verdict | None
    measure_first: str = ""


@dataclass(frozen=True, slots=True)
class _Check:
    """One limit: what it is on, its field in Limits, the reading it is held against."""

    what: str
    field: str
    reading: Callable[[Choice], Reading | None]
    show: Callable[[float], str]


def recommend(
    rows: Iterable[Row],
    device: str | None = None,
    limits: Limits | None = None,
    *,
    depth: int = 0,
    corpus: str | None = None,
    together: bool = False,
) -> Answer:
    """The answer for one device, or for every device there are rows of.

    Ranked by quality, then by latency; a candidate stands once for each device and kind of
    evidence, with the thread count that serves it best. A measured row replaces a projection of
    the same run. corpus: the one whose scores count, by default the one most rows have.
    Raises UnknownName on a device without rows, BadInput on a depth without rows.
    """
    limits = limits or Limits()
    rows = list(rows)
    known = sorted({row.device for row in rows})
    if device is not None and device not in known:
        have = ", ".join(known) or "none"
        raise UnknownName(f"no rows of device {device!r}; there are rows of: {have}")
    rows = measured_first(row for row in rows if device in (None, row.device))
    metric = "bits per byte" if limits.min_accuracy is None else "accuracy"
    corpora = Counter(r.quality.corpus for r in rows if r.quality and r.quality.metric == metric)
    corpus = corpus or min(corpora, key=lambda name: (-corpora[name], name), default="")
    best: dict[tuple[str, ...], Verdict] = {}
    for choice in choices(rows, depth):
        verdict = judge(choice, limits, metric, corpus)
        row = choice.row
        host = row.environment.host if row.environment else ""
        place = (row.candidate, row.device, host, row.engine)
        if place not in best or _merit(verdict) < _merit(best[place]):
            best[place] = verdict
    ranked = sorted((v for v in best.values() if not v.misses), key=_merit)
    rejected = sorted((v for v in best.values() if v.misses), key=_merit)
    if not together:
        ranked.sort(key=lambda v: v.choice.kind)
    return Answer(
        limits=limits,
        depth=depth,
        metric=metric,
        corpus=corpus,
        together=together,
        ranked=tuple(ranked),
        rejected=tuple(rejected),
        nearest=rejected[0] if rejected and not ranked else None,
        measure_first=_measure_first([*ranked, *rejected], limits),
    )


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
        chance *= _chance(reading, factor)
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


def _chance(reading: Reading, factor: float) -> float:
    """That a limit holds which the value misses by this factor (below 1: holds).

    The logarithm is taken for normal; an interval holds 90 % of projections, else 95 %.
    """
    reach = 1.645 if reading.mark == "P" else 1.96
    spread = math.log(reading.high / reading.low) / (2 * reach) if reading.low > 0 else 0.0
    if spread <= 0:
        return float(factor <= 1)
    return 0.5 * math.erfc(math.log(factor) / (spread * math.sqrt(2)))


def _measure_first(verdicts: list[Verdict], limits: Limits) -> str:
    """Of the two likeliest answers, the one whose measurement decides most between them.

    That is the one whose chance of holding every limit is nearest to a half; without limits, or
    when both are sure, the one whose time is least certain. Measured ones need no measuring.
    """
    first = sorted((v for v in verdicts if v.chance > 0.01), key=lambda v: -v.chance)[:2]
    open_ones = [v for v in first if v.choice.seconds and v.choice.seconds.mark == "P"]
    if len(first) < 2 or not open_ones:
        return ""

    def unsure(verdict: Verdict) -> tuple[float, float]:
        seconds = verdict.choice.seconds
        width = seconds.high / seconds.low if seconds and seconds.low > 0 else 1.0
        return round(abs(verdict.chance - 0.5), 2), -width

    row = min(open_ones, key=unsure).choice.row
    return f"{row.candidate} on {row.device}, {row.workload}, {row.threads} threads"


def parse_bytes(text: str) -> int:
    """Bytes of "64MiB", "64 MB" or "67108864". Raises BadInput."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].upper() not in BYTES:
        raise BadInput(f"cannot read {text!r} as memory; write it like 64MiB, 64MB or 67108864")
    return round(float(match[1]) * BYTES[match[2].upper()])


def _merit(verdict: Verdict) -> tuple[float, float, float, str]:
    """Sorts the best first: fewest broken limits by factor, then quality, then latency."""
    quality, seconds = verdict.choice.quality, verdict.choice.seconds
    score = math.inf
    if quality is not None:
        score = -quality.value if quality.metric == "accuracy" else quality.value
    row = verdict.choice.row
    name = f"{row.candidate} {row.device} {row.threads:4d}"
    return verdict.shortfall, score, seconds.value if seconds else math.inf, name


def _score(choice: Choice) -> Reading | None:
    """Quality with its 95 % interval, from the standard error."""
    quality = choice.quality
    if quality is None:
        return None
    reach = 1.96 * quality.standard_error
    value = quality.value
    return Reading(value=value, low=value - reach, high=value + reach, mark="M", source="scored")


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
    _Check("quality", "max_bits_per_byte", _score, lambda v: f"{v:.3f} bits per byte"),
    _Check("accuracy", "min_accuracy", _score, lambda v: f"{v:.3f}"),
)
