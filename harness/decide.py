"""Rows + limits -> which candidate on which device, and why not the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness import judge
from harness.choice import choices
from harness.errors import UnknownName
from harness.evidence import Reading
from harness.judge import Limits, Verdict
from harness.pareto import measured_first
from harness.records import Row
from harness.table import threads_text

UNLIKELY = 0.01  # a chance below which nothing is expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Choices that hold every limit, best first, and the rest with their reasons.

    ranked: measured choices first, then projected ones, unless `together` was asked for
    nearest: where nothing holds the limits, the choice that misses by the smallest factor
    measure_first: what would tell most about which of the first two to take, and why, or ""
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
        verdict = judge.judge(choice, limits, metric, corpus)
        row = choice.row
        host = row.environment.host if row.environment else ""
        place = (row.candidate, row.device, host, row.engine)
        if place not in best or judge.merit(verdict) < judge.merit(best[place]):
            best[place] = verdict
    ranked = sorted((v for v in best.values() if not v.misses), key=judge.merit)
    rejected = sorted((v for v in best.values() if v.misses), key=judge.merit)
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
        measure_first=_measure_first([*ranked, *rejected]),
    )


def _measure_first(verdicts: Iterable[Verdict]) -> str:
    """What to measure to know which of the first two to take, and why; "" where nothing tells.

    The first two are those of best quality, then of least time, of all that may hold the limits.
    The better one is taken if it holds. Where that is open, it is measured; where it is not and
    quality cannot tell the two apart, time decides, and the less certain time is measured.
    """
    likely = sorted((v for v in verdicts if v.chance > UNLIKELY), key=lambda v: judge.merit(v)[1:])
    if not likely:
        return ""
    first, *others = likely
    if _projected(first) and first.chance < 1 - UNLIKELY:
        taken = "taken before all others" if others else "the only one that may be taken"
        return f"{_where(first)}: {taken}, if it holds all limits, which is {first.chance:.0%} sure"
    if not others or not _overlap(judge.score(first.choice), judge.score(others[0].choice)):
        return ""
    open_ones = [v for v in (first, others[0]) if _projected(v)]
    if not open_ones or not _overlap(first.choice.seconds, others[0].choice.seconds):
        return ""
    least = max(open_ones, key=lambda v: _width(v.choice.seconds))
    return f"{_where(least)}: quality cannot tell the first two apart, and their times overlap"


def _projected(verdict: Verdict) -> bool:
    return verdict.choice.seconds is not None and verdict.choice.seconds.mark == "P"


def _overlap(one: Reading | None, other: Reading | None) -> bool:
    return bool(one and other and one.low <= other.high and other.low <= one.high)


def _width(reading: Reading | None) -> float:
    return reading.high / reading.low if reading and reading.low > 0 else 1.0


def _where(verdict: Verdict) -> str:
    row = verdict.choice.row
    return f"{row.candidate} on {row.device}, {row.workload}, {threads_text(row.threads)}"
