"""Contenders + a device -> what it is best used for, and what hardware would change that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from harness import (
    codesign,
    contenders,
    correct,
    forecast,
    intervals,
    joules,
    roofline,
    scaling,
    stats,
)
from harness.arrays import Floats, Ints, Seconds
from harness.codesign import Budget, Map
from harness.contenders import Contender
from harness.doubts import doubts
from harness.reported import Line
from harness.roofline import Fit
from harness.settings import Setting, points
from targets.profile import Device

NO_WATTS = "no watts stated"  # where an energy budget asks for them: nothing is known
FACTORS = 2.0 ** np.arange(0, 6.01, 0.125)  # by which a device may be better than it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a device is best used for in one suite, and what it lacks for better.

    rate: tokens/s of the chosen one with its 90 % interval; chance: that it holds the budget
    tied: others that hold it and are as good; lacks: a better one, and by which factor the bus
    alone, the clocks alone, and both would have to grow for it; None where none to 64 is enough
    """

    place: scaling.Place
    suite: str
    chosen: Contender | None
    verdict: str
    tied: tuple[str, ...]
    rate: tuple[float, float, float] | None
    chance: float
    bound: str
    notes: tuple[str, ...]
    better: Contender | None
    better_bytes: float
    lacks: tuple[float | None, float | None, float | None]


def standing(suite: str, device: Device, budget: Budget, fit: Fit) -> Standing:
    """What this device, with its own facts and what was measured on it, is best used for."""
    field = contenders.suites()[suite]
    lines = codesign.lines_of(field, device, budget)
    times, threads = _fastest(lines, device, fit)
    settings = [
        replace(line.setting, threads=n) for line, n in zip(lines, threads.tolist(), strict=True)
    ]
    known = [
        correct.corrected(
            seconds, intervals.half(fit.intervals["decode"], doubts(one, fit, line.notes)), one, fit
        )
        for seconds, one, line in zip(times.total.tolist(), settings, lines, strict=True)
    ]
    total = np.array([seconds for seconds, _, _ in known])
    holds = total <= 1 / budget.tokens_per_second
    if budget.joules_per_token is not None:
        holds &= [
            _draws(*each, budget.joules_per_token) for each in zip(settings, total, strict=True)
        ]
    stored = np.array([line.stored_bytes for line in lines])
    fits = stored <= device.memory_bytes.value
    (chosen,), (tied,) = contenders.choose((holds & fits)[None], field, codesign.sizes(lines))
    rate, chance, bound, notes = None, 0.0, "", ()
    if chosen >= 0:
        seconds, half, seen = known[chosen]
        found = doubts(settings[chosen], fit, lines[chosen].notes)
        notes = (*seen, *(why for why in found.values() if why.startswith("extrapolates")))
        rate = (1 / seconds, math.exp(-half) / seconds, math.exp(half) / seconds)
        lead = math.log(rate[0] / budget.tokens_per_second)
        chance = stats.chance(lead, half / stats.REACH_90)
        bound = roofline.bounds(times)[chosen]
    better, lacks = _lacking(chosen, field, settings, total / times.total, budget, fit)
    verdict = contenders.WORDS.get(int(chosen), "")
    if budget.joules_per_token is not None and None in (device.idle_watts, device.load_watts):
        verdict, better, lacks = NO_WATTS, None, (None, None, None)
    return Standing(
        place=scaling.place(device, fit),
        suite=suite,
        chosen=field[chosen] if chosen >= 0 else None,
        verdict=verdict,
        tied=tuple(field[i].name for i in np.flatnonzero(tied) if i != chosen),
        rate=rate,
        chance=chance,
        bound=bound,
        notes=notes,
        better=None if better is None else field[better],
        better_bytes=0.0 if better is None else float(stored[better]),
        lacks=lacks,
    )


def agreement(found: Sequence[Map], standings: Sequence[Standing]) -> tuple[int, int]:
    """For how many devices that lie on a map it names what their own projection does, and of how
    many: maps know of a device but where it lies."""
    same = among = 0
    for one in standings:
        if one.verdict == NO_WATTS:
            continue
        at = one.place
        fits = [m for m in found if m.suite == one.suite and m.memory_bytes <= at.memory_bytes]
        if not fits:
            continue
        last = max(fits, key=lambda m: m.memory_bytes)
        if not (
            codesign.within(at.bandwidth, last.bandwidth)
            and codesign.within(at.compute, last.compute)
        ):
            continue
        row, column = (
            int(np.abs(np.log(axis / value)).argmin())
            for axis, value in ((last.compute, at.compute), (last.bandwidth, at.bandwidth))
        )
        which = int(last.chosen[row, column])
        among += 1
        same += (last.field[which] if which >= 0 else None) == one.chosen
    return same, among


def _lacking(
    chosen: int,
    field: Sequence[Contender],
    settings: Sequence[Setting],
    shift: Floats,
    budget: Budget,
    fit: Fit,
) -> tuple[int | None, tuple[float | None, float | None, float | None]]:
    """The better contender that needs least of bus and clocks together, and what it needs."""
    better = contenders.beyond(chosen, field)
    if not len(better):
        return None, (None, None, None)
    one = np.ones_like(FACTORS)
    found = []
    for i in better.tolist():
        setting, limit = settings[i], 1 / (budget.tokens_per_second * shift[i])
        totals = (
            scaling.over([setting], bus, clock, fit).total[:, 0]
            for bus, clock in ((FACTORS, one), (one, FACTORS), (FACTORS, FACTORS))
        )
        alone, clocked, both = (
            float(FACTORS[enough[0]]) if len(enough) else None
            for enough in (np.flatnonzero(total <= limit) for total in totals)
        )
        found.append((both or math.inf, setting.work.streamed_bytes, i, (alone, clocked, both)))
    _, _, best, needs = min(found, key=lambda x: x[:2])
    return best, needs


def _fastest(lines: Sequence[Line], device: Device, fit: Fit) -> tuple[Seconds, Ints]:
    """Of each line with its best count of threads, and that count."""
    counts = np.array(forecast.counts(device))
    settings = [replace(line.setting, threads=int(n)) for n in counts for line in lines]
    parts = roofline.seconds(points(settings, fit), fit.names, fit.values)
    shape = len(counts), len(lines)
    best = parts.total.reshape(shape).argmin(axis=0)
    at = best, np.arange(len(lines))
    return Seconds(
        **{f.name: getattr(parts, f.name).reshape(shape)[at] for f in fields(Seconds)}
    ), counts[best]


def _draws(setting: Setting, seconds: float, most: float) -> bool:
    """Whether a token takes no more than so many joules; not where nobody states watts."""
    found = joules.of_setting(setting, (seconds, seconds, seconds))
    return found.kind == "projected" and found.value <= most
