"""Sides that take turns -> samples, paired ratios, cells."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from harness import stats
from harness.peers.frame import Cell, Met, verdict

Side: TypeAlias = Callable[[], float]  # takes one turn and returns its seconds
Samples: TypeAlias = Mapping[str, tuple[float, ...]]

QUIET_SECONDS = 0.002  # as long as this no other thread may compute before a turn begins
QUIET_SHARE = 0.1
PATIENCE_SECONDS = 0.5


def rounds(sides: Mapping[str, Side], count: int, warmups: int = 1) -> Samples:
    """`count` seconds of each side. In each round every side has one turn, in alternating order.

    Before a turn the threads that the side before left spinning fall asleep, so that each side
    may wait for work in the way it likes best and none pays for another's.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(warmups):
        for side in sides.values():
            side()
    order = list(sides)
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(count):
            for name in order:
                settle()
                found[name].append(sides[name]())
            order.reverse()
    finally:
        if was_on:
            gc.enable()
    return {name: tuple(samples) for name, samples in found.items()}


def settle(patience: float = PATIENCE_SECONDS) -> None:
    """Wait until no other thread of this process computes, `patience` seconds at most."""
    end = time.perf_counter() + patience
    quiet = 0
    # Twice, because another process may keep a spinning thread from its core for a while.
    while quiet < 2 and time.perf_counter() < end:
        before = time.process_time()
        time.sleep(QUIET_SECONDS)
        used = time.process_time() - before
        quiet = quiet + 1 if used < QUIET_SHARE * QUIET_SECONDS else 0


def timed(work: Callable[[], object], turns: int = 1) -> Side:
    """A side that does `work` so many times and returns the seconds of one."""

    def side() -> float:
        begin = time.perf_counter()
        for _ in range(turns):
            work()
        return (time.perf_counter() - begin) / turns

    return side


def ratios(upper: Sequence[float], lower: Sequence[float]) -> tuple[float, float, float]:
    """Median and 95 % interval of the ratio within each round."""
    paired = [a / b for a, b in zip(upper, lower, strict=True)]
    low, high, _ = stats.median_interval(paired)
    return stats.median(paired), low, high


def faster(
    name: str,
    samples: Samples,
    *,
    bar: str,
    ours: str = "ours",
    theirs: Iterable[str],
    unit: str = "s",
    note: str = "",
    headline: bool = False,
) -> Cell:
    """How many times faster we are than the fastest of them; the note says which that was."""
    best = min(theirs, key=lambda side: stats.median(samples[side]))
    ratio, low, high = ratios(samples[best], samples[ours])
    return Cell(
        cell=name,
        ours=stats.median(samples[ours]),
        theirs=stats.median(samples[best]),
        unit=unit,
        ratio=ratio,
        low=low,
        high=high,
        bar=bar,
        met=verdict(bar, ratio, low, high),
        note="; ".join(filter(None, (f"against {best}", note))),
        headline=headline,
    )


def share(
    name: str,
    samples: Samples,
    *,
    amount: float,
    limit_amount: float,
    bar: str,
    ours: str = "ours",
    limit: str = "limit",
    unit: str = "B/s",
    note: str = "",
    headline: bool = False,
) -> Cell:
    """Our rate as a share of the machine's limit: `amount` a turn of ours, over its seconds."""
    rates = [amount / seconds for seconds in samples[ours]]
    tops = [limit_amount / seconds for seconds in samples[limit]]
    ratio, low, high = ratios(rates, tops)
    return Cell(
        cell=name,
        ours=stats.median(rates),
        theirs=stats.median(tops),
        unit=unit,
        ratio=ratio,
        low=low,
        high=high,
        bar=bar,
        met=verdict(bar, ratio, low, high),
        note=note or "of the limit measured in the same rounds",
        headline=headline,
    )


def geometric_mean(name: str, cells: Iterable[Cell], bar: str, headline: bool = True) -> Cell:
    """The mean ratio of several cells; their intervals count as independent errors.

    Failed cells are left out and counted in the note; without any other, the mean fails too.
    """
    everything = list(cells)
    good = [cell for cell in everything if cell.ratio]
    missing = len(everything) - len(good)
    note = f"of {len(good)} cells" + (f", {missing} failed" if missing else "")
    if not good:
        return Cell(cell=name, bar=bar, met="failed", note=note, headline=headline)
    logs = [math.log(cell.ratio or 1.0) for cell in good]
    halves = [math.log((cell.high or 1.0) / (cell.low or 1.0)) / 2 for cell in good]
    centre = math.fsum(logs) / len(logs)
    half = math.sqrt(math.fsum(h * h for h in halves)) / len(halves)
    ratio, low, high = (math.exp(centre + x) for x in (0.0, -half, half))
    met: Met = verdict(bar, ratio, low, high)
    return Cell(
        cell=name,
        unit="1",
        ratio=ratio,
        low=low,
        high=high,
        bar=bar,
        met=met if not missing else "failed",
        note=note,
        headline=headline,
    )
