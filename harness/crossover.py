"""Devices + a size -> where one algorithm overtakes another: context depth, active fraction.

Two candidates on one device, engine and format share most of what a projection may be wrong by.
What they do not share is the noise of a single measurement (correct.py), once for each: a crossing
lies where their times are equal, and its ends where they differ by that much, with 90 %.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import candidates, forecast, likeness, project, roofline, settings, workload
from harness.arrays import Floats
from harness.errors import BadInput
from harness.records import Recipe, Workload
from harness.roofline import Fit
from harness.settings import Work
from targets.profile import Device

FORMATS = ("f32", "f16", "int8", "int4", "ternary")
PLAIN = "f32"  # the format of a candidate without steps
DEEPEST = 2**20  # tokens of context, beyond which nothing is sought
LEAST = 1 / 64  # of the neurons, below which nothing is sought
STEPS = 81  # between the ends of what is sought, evenly on a logarithm
REACH = 1.645  # standard deviations that hold 90 %


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
    """

    device: str
    size: str
    format: str
    depth: Crossing
    fits: int | None
    active: Crossing
    equal: Crossing


def crossovers(
    devices: Sequence[Device], size: str, formats: Sequence[str], fit: Fit | None = None
) -> list[Crossover]:
    """One for each device and format. Raises BadInput, UnknownName."""
    fit = fit or roofline.load()
    if not devices or not formats:
        raise BadInput("nothing to compare: name at least one device and one format")
    reach = REACH * math.sqrt(2 * likeness.variances(fit)["noise"])
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


def as_csv(found: Sequence[Crossover]) -> str:
    """A line a device and format; a blank is "nowhere"."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    about = ("depth", "active", "equal")
    heads = [f"{name}_{part}" for name in about for part in ("even", "sure", "verdict")]
    writer.writerow(["device", "size", "format", *heads, "attention_fits_to"])
    for one in found:
        crossings: list[object] = []
        for each in (getattr(one, name) for name in about):
            crossings += ["" if x is None else f"{x:.4g}" for x in (each.even, each.sure)]
            crossings.append(each.verdict)
        fits = "" if one.fits is None else one.fits
        writer.writerow([one.device, one.size, one.format, *crossings, fits])
    return out.getvalue()


def markdown(found: Sequence[Crossover]) -> str:
    """A page with one table a question: devices down, formats across."""
    formats = list(dict.fromkeys(one.format for one in found))
    by_place = {(one.device, one.format): one for one in found}
    lines = [f"# Where one algorithm overtakes another, at {found[0].size}", "", *_ABOUT]
    for title, cell in _QUESTIONS.items():
        lines += ["", f"## {title}", "", f"| device | {' | '.join(formats)} |"]
        lines.append(f"|---|{'---|' * len(formats)}")
        for device in dict.fromkeys(one.device for one in found):
            cells = (cell(by_place[device, form]) for form in formats)
            lines.append(f"| {device} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _told(crossing: Crossing, show: Callable[[float], str]) -> str:
    if crossing.verdict in ("tied", "never") or crossing.even is None:
        return crossing.verdict
    even = "always" if crossing.verdict == "always" else show(crossing.even)
    if crossing.sure is None:
        return f"{even}, nowhere surely"
    return (
        f"{even}, surely"
        if crossing.sure == crossing.even
        else f"{even}, surely {show(crossing.sure)}"
    )


def _tokens(count: float) -> str:
    return f"{count:,.0f}"


def _fraction(share: float) -> str:
    return f"{share:.2f}"


def _room(one: Crossover) -> str:
    return "weights do not fit" if one.fits is None else _tokens(one.fits)


_ABOUT = (
    "Projected decoding at batch one on our engine, each side with its fastest count of threads. "
    "`N, surely M`: times are equal at N; from (or up to) M on one side leads by more than two "
    "projections of one device, engine and format differ by chance, with 90 %. `always`: from the "
    "first token on, or with all neurons; `tied`: nobody surely leads anywhere. An ffn that is "
    "`selective` reads and computes only a fraction of its groups.",
)
_QUESTIONS: Mapping[str, Callable[[Crossover], str]] = {
    "Context from which MCSD decodes faster than attention of as many parameters": lambda one: (
        _told(one.depth, _tokens)
    ),
    "Context to which attention's cache fits in memory": _room,
    "Active fraction up to which `selective` is faster than dense of as many parameters": (
        lambda one: _told(one.active, _fraction)
    ),
    "The same against dense of as many operations": lambda one: _told(one.equal, _fraction),
}


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
    points = settings.grid(machines, works, "numba", fit)
    total = roofline.seconds(points, fit.names, fit.values).total
    rows = total.reshape(len(machines), len(works))
    starts = np.cumsum([0, *(len(forecast.counts(device)) for device in devices)])[:-1]
    best: Floats = np.minimum.reduceat(rows, starts, axis=0)
    return best


def _fits(loads: Sequence[Workload], depths: Sequence[int], device: Device) -> int | None:
    """The depth to which memory suffices; the cache grows evenly with it."""
    first, last = loads[0].resident_bytes, loads[-1].resident_bytes
    room = device.memory_bytes.value - first
    if room < 0:
        return None
    each = (last - first) / (depths[-1] - depths[0])
    return min(int(room / each), depths[-1])
