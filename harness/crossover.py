"""Devices + a size -> where one algorithm overtakes another: context depth, active fraction.

Two candidates on one device, engine and format share most of what a projection may be wrong by.
What they do not share is the noise of a single measurement (likeness.py), once for each: a crossing
lies where their times are equal, and its ends where they differ by that much, with 90 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import candidates, forecast, likeness, project, roofline, stats, workload
from harness.arrays import Floats
from harness.doubts import doubts
from harness.errors import BadInput
from harness.ours import ENGINE
from harness.records import Recipe, Workload
from harness.roofline import Fit
from harness.settings import Setting, Work, grid
from targets.profile import Device

FORMATS = ("f32", "f16", "int8", "int4", "ternary")
PLAIN = "f32"  # the format of a candidate without steps
DEEPEST = 2**20  # tokens of context, beyond which nothing is sought
LEAST = 1 / 64  # of the neurons, below which nothing is sought
STEPS = 81  # between the ends of what is sought, evenly on a logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where a challenger overtakes another.

    even: where their times are projected to be equal; sure: where the challenger leads by more
    than its lead may be wrong; None: nowhere within what was looked at, and the place where the
    looking began: everywhere
    verdict: "crosses", "always", "never", or "tied" where neither leads for sure anywhere
    """

    even: float | None
    sure: float | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """On one device, in one format of the weights.

    depth: context from which MCSD decodes faster than attention of as many parameters
    fits: context to which attention's cache fits beside its weights; None where they do not fit
    active: fraction of the ffn's neurons up to which `selective` beats dense of as many parameters
    equal: the same against dense of as many operations
    notes: why such a projection is made where no fit has seen anything alike
    """

    device: str
    size: str
    format: str
    depth: Crossing
    fits: int | None
    active: Crossing
    equal: Crossing
    notes: tuple[str, ...] = ()


def crossovers(
    devices: Sequence[Device], size: str, formats: Sequence[str], fit: Fit | None = None
) -> list[Crossover]:
    """One for each device and format. Raises BadInput, UnknownName."""
    fit = fit or roofline.load()
    if not devices or not formats:
        raise BadInput("nothing to compare: name at least one device and one format")
    reach = stats.REACH_90 * math.sqrt(2 * likeness.variances(fit)["noise"])
    depths = np.unique(np.append(0, np.geomspace(1, DEEPEST, STEPS).round())).astype(int)
    active = np.geomspace(LEAST, 1, STEPS)
    found = []
    for form in formats:
        step = "" if form == PLAIN else f"@{form}"
        attention, mcsd, selective = (
            candidates.parse(f"{stack}:{size}{step}")
            for stack in ("attention", "mcsd", "attention+selective")
        )
        kept = [_decode(attention, int(d)) for d in depths]
        sparse = [_decode(replace(selective, active=float(a))) for a in active]
        slim = [_slim(kept[0], each) for each in sparse]
        times = [
            _times([project.work_of(w) for w in loads], devices, fit)
            for loads in (kept, [_decode(mcsd)], sparse, kept[:1], slim)
        ]
        for device, cached, plain, some, dense, equal in zip(devices, *times, strict=True):
            found.append(
                Crossover(
                    device=device.name,
                    size=size,
                    format=form,
                    depth=crossing(depths.astype(float), np.log(cached / plain), reach),
                    fits=_fits(kept, depths.tolist(), device),
                    active=crossing(active[::-1], np.log(dense / some)[::-1], reach),
                    equal=crossing(active[::-1], np.log(equal / some)[::-1], reach),
                    notes=_extrapolates(project.work_of(kept[0]), device, fit),
                )
            )
    return found


def crossing(places: Floats, lead: Floats, reach: float) -> Crossing:
    """Where a challenger begins to lead; places in the order in which its lead grows.

    lead: logarithm of the other's time over the challenger's; reach: what it may be wrong by
    """

    def begins(least: float) -> float | None:
        """From where on the lead is at least that."""
        behind = np.flatnonzero(lead < least)
        if not len(behind):
            return float(places[0])
        last = int(behind[-1])
        if last == len(places) - 1:
            return None
        part = (least - lead[last]) / (lead[last + 1] - lead[last])
        return float(places[last] + part * (places[last + 1] - places[last]))

    even, sure = begins(0.0), begins(reach)
    verdict = "always" if even == places[0] else "never" if even is None else "crosses"
    tied = bool(np.all(np.abs(lead) < reach))
    return Crossing(even=even, sure=sure, verdict="tied" if tied else verdict)


def _decode(recipe: Recipe, depth: int = 0) -> Workload:
    """One token at this depth."""
    run = workload.Run(f"tg1 @ d{depth}", "decode", 1, depth)
    return workload.build(recipe, candidates.final_shape(recipe), run)


def _slim(dense: Workload, sparse: Workload) -> Workload:
    """The dense one with an ffn so narrow that it computes as much as that of the sparse one."""

    def spent(load: Workload) -> int:
        return sum(call.count * call.operations for call in load.calls if call.part == "ffn")

    share = spent(sparse) / spent(dense)
    calls = (
        replace(
            call,
            operations=round(share * call.operations),
            weight_bytes=round(share * call.weight_bytes),
        )
        if call.part == "ffn"
        else call
        for call in dense.calls
    )
    return replace(dense, calls=tuple(calls))


def _times(works: Sequence[Work], devices: Sequence[Device], fit: Fit) -> Floats:
    """Seconds of each work on each device with its fastest count of threads: (devices,works)."""
    machines = [(device, threads) for device in devices for threads in forecast.counts(device)]
    points = grid(machines, works, ENGINE, fit)
    total = roofline.seconds(points, fit.names, fit.values).total
    rows = total.reshape(len(machines), len(works))
    starts = np.cumsum([0, *(len(forecast.counts(device)) for device in devices)])[:-1]
    best: Floats = np.minimum.reduceat(rows, starts, axis=0)
    return best


def _extrapolates(work: Work, device: Device, fit: Fit) -> tuple[str, ...]:
    """With any of the counts of threads that were tried."""
    settings = (
        Setting(work=work, device=device, threads=n, engine=ENGINE) for n in forecast.counts(device)
    )
    reasons = (why for setting in settings for why in doubts(setting, fit).values())
    return tuple(dict.fromkeys(why for why in reasons if why.startswith("extrapolates")))


def _fits(loads: Sequence[Workload], depths: Sequence[int], device: Device) -> int | None:
    """The depth to which memory suffices; the cache grows evenly with it."""
    first, last = loads[0].resident_bytes, loads[-1].resident_bytes
    room = device.memory_bytes.value - first
    if room < 0:
        return None
    each = (last - first) / (depths[-1] - depths[0])
    return min(int(room / each), depths[-1])
