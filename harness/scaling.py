"""One device -> many that are not: its bus and its clocks scaled, as arrays, and where they lie.

A machine lies where the projection says that it reaches: so many bytes per second from memory, and
so many multiply-adds per second with 4-bit weights, whatever its cores are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from harness import forecast, roofline
from harness.arrays import Floats, Machines, Points, Seconds
from harness.roofline import Fit
from harness.settings import Setting, Work, points
from targets.profile import Device

BUS = ("bus", "fabric", "read_one", "read_all")  # fields of Machines that grow with the bus
CLOCK = ("hertz", "slowest", "int8_peak", "float_peak")  # and with the clocks
PROBE = Work(  # 4-bit weights from memory, and nothing else
    phase="decode",
    tokens=1,
    layers=0,
    weights={"q4_0": 1e9},
    others=0.0,
    streamed_bytes=4.6 / 8 * 1e9,
    resident_bytes=1e15,
)
PROBED = "llama.cpp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a device lies on a map: what it is projected to reach, and what it can hold."""

    device: str
    memory_bytes: float
    bandwidth: float
    compute: float


def place(device: Device, fit: Fit) -> Place:
    """What a device reaches with its best count of threads."""
    settings = [
        Setting(work=PROBE, device=device, threads=n, engine=PROBED)
        for n in forecast.counts(device)
    ]
    parts = roofline.seconds(points(settings, fit), fit.names, fit.values)
    best = int(parts.total.argmin())
    return Place(
        device=device.name,
        memory_bytes=device.memory_bytes.value,
        bandwidth=PROBE.streamed_bytes / float(parts.memory[best]),
        compute=PROBE.weights["q4_0"] / float(parts.compute[best]),
    )


def scaled(machines: Machines, bus: Floats, clock: Floats) -> Machines:
    """The first machine once for each pair of factors on its bus and its clocks."""

    def field(name: str) -> Floats:
        factor = bus if name in BUS else clock if name in CLOCK else np.ones_like(bus)
        one: Floats = getattr(machines, name)[0]
        if name not in BUS + CLOCK:
            return np.repeat(one[None], len(bus), axis=0)
        found: Floats = np.multiply.outer(factor, one)
        return found

    return Machines(**{each.name: field(each.name) for each in fields(Machines)})  # type: ignore[arg-type]


def over(settings: Sequence[Setting], bus: Floats, clock: Floats, fit: Fit) -> Seconds:
    """Of every setting on every scaled machine; all settings are of one machine: (m,w)."""
    here = points(settings, fit)
    m, w = len(bus), len(settings)
    there = Points(
        machines=scaled(here.machines, bus, clock),
        loads=here.loads,
        which=np.repeat(np.arange(m), w),
        what=np.tile(np.arange(w), m),
        table=here.table,
        kind_of_machine=np.zeros(m, np.int64),
        kind_of_load=here.kind_of_load,
    )
    parts = roofline.seconds(there, fit.names, fit.values)
    return Seconds(**{f.name: getattr(parts, f.name).reshape(m, w) for f in fields(Seconds)})


def scales(like: Device, bandwidth: Floats, compute: Floats, fit: Fit) -> tuple[Floats, Floats]:
    """Factors on the bus and on the clocks with which a device reaches so much."""
    probe = [Setting(work=PROBE, device=like, threads=like.cores, engine=PROBED)]
    factors = np.geomspace(2.0**-20, 2.0**20, 400)
    by_bus = PROBE.streamed_bytes / over(probe, factors, np.ones_like(factors), fit).memory[:, 0]
    by_clock = (
        PROBE.weights["q4_0"] / over(probe, np.ones_like(factors), factors, fit).compute[:, 0]
    )
    return tuple(
        np.exp(np.interp(np.log(wanted), np.log(reached), np.log(factors)))
        for wanted, reached in ((bandwidth, by_bus), (compute, by_clock))
    )  # type: ignore[return-value]
