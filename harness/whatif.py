"""Device + changes -> the device that it would be; what each fact is worth; what is required.

Changes are texts such as memory_bandwidth=2x, clock=2.8e9, memory=16GiB, cores=+4xA76@2.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import mul
from typing import Any

from harness import energy, watts
from harness.errors import BadInput
from harness.project import project
from harness.records import Failed, Projected, Workload
from harness.roofline import Fit
from targets.profile import Cluster, Device, Fact, limits

SOURCE = "what if"
STEP = 1.05  # of a fact, up and down, to see what it is worth
SCALES = (2.0**-10, 2.0**10)  # of a fact, between which what is required is sought
MOST_CORES = 1024
FACTS = ("memory_bandwidth", "clock", "cache", "int8", "float32", "memory", "idle", "load")
UNITS = {"": 1.0, "b/s": 1.0, "hz": 1.0, "b": 1.0, "w": 1.0}
UNITS |= {"kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40}
UNITS |= {"mb/s": 1e6, "gb/s": 1e9, "tb/s": 1e12, "mhz": 1e6, "ghz": 1e9, "gb": 1e9, "mb": 1e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """Of one fact: percent that a rate, and joules, change with one percent of it."""

    fact: str
    speed: float
    joules: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What a device must have for a rate, other facts as they are; None: no amount does it.

    A scale at the lower end of SCALES, or the bus that it gives, may be more than is needed. What
    is needed is so at even odds: the rate is within `factor` either way with 90 %.
    """

    bandwidth: float | None  # of the bus [B/s]
    clock_scale: float | None  # of every core's clock
    both_scale: float | None  # of bus and clocks together
    memory_bytes: float
    factor: float
    notes: tuple[str, ...]  # why this device is shaky ground, or extrapolates


def roomy(device: Device) -> Device:
    """With memory for anything, so that speed alone is asked for."""
    return replace(device, memory_bytes=Fact(2.0**43, "estimated", SOURCE))


def changed(device: Device, changes: Sequence[str]) -> Device:
    """The device after every change, in order. Raises BadInput."""
    for text in changes:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise BadInput(f"cannot read {text!r}; write it like memory_bandwidth=2x")
        if key == "cores":
            device = _with_cores(device, value)
        elif key in FACTS:
            device = _with(device, key, partial(_new, text=value, key=key))
        else:
            raise BadInput(f"unknown fact {key!r}; known: cores, {', '.join(FACTS)}")
    return device


def elasticities(
    workload: Workload, device: Device, threads: int, fit: Fit | None = None
) -> tuple[Worth, ...]:
    """What each fact is worth at this point, most first. Raises BadInput where it does not fit."""

    def at(each: Device) -> tuple[float, float | None]:
        seconds = project(workload, each, threads, fit=fit)
        if isinstance(seconds, Failed):
            raise BadInput(f"{device.name}: {seconds.reason}")
        joules = energy.modelled(seconds, workload, each, threads)
        return seconds.value, joules.value if isinstance(joules, Projected) else None

    found = []
    for fact in FACTS:
        if fact == "memory":
            continue  # it fits or not
        ends = [at(_with(device, fact, partial(mul, f), check=False)) for f in (STEP, 1 / STEP)]
        (fast, low), (slow, high) = ends
        width = 2 * math.log(STEP)
        joules = math.log(low / high) / width if low and high else None
        found.append(Worth(fact=fact, speed=math.log(slow / fast) / width, joules=joules))
    return tuple(sorted(found, key=lambda w: -max(abs(w.speed), abs(w.joules or 0))))


def needed(
    workload: Workload, device: Device, threads: int, rate: float, fit: Fit | None = None
) -> Needed:
    """The least of each that reaches `rate` tokens per second of this workload."""
    if not (math.isfinite(rate) and rate > 0):
        raise BadInput(f"tokens per second must be a number above 0, got {rate}")
    here = roomy(device)
    now = project(workload, here, threads, fit=fit)
    if isinstance(now, Failed):
        raise BadInput(f"{device.name}: {now.reason}")

    def least(facts: Sequence[str]) -> float | None:
        def reached(scale: float) -> bool:
            other = here
            for fact in facts:
                other = _with(other, fact, partial(mul, scale), check=False)
            seconds = project(workload, other, threads, fit=fit)
            return isinstance(seconds, Projected) and workload.tokens / seconds.value >= rate

        low, high = SCALES
        if not reached(high):
            return None
        if reached(low):
            return low
        for _ in range(40):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if reached(middle) else (middle, high)
        return high

    bandwidth = least(["memory_bandwidth"])
    return Needed(
        bandwidth=None if bandwidth is None else bandwidth * device.bandwidth.value,
        clock_scale=least(["clock"]),
        both_scale=least(["memory_bandwidth", "clock"]),
        memory_bytes=workload.resident_bytes,
        factor=math.sqrt(now.high / now.low),
        notes=now.flags,
    )


# ---- changes -------------------------------------------------------------------------------


def _with(device: Device, key: str, new: Callable[[float], float], *, check: bool = True) -> Device:
    """The device with one kind of fact changed wherever it has it."""

    def fact(old: Fact, name: str) -> Fact:
        value = new(old.value)
        low, high = limits(name)
        if check and not low <= value <= high:
            raise BadInput(f"{key} would be {value:g}, must be from {low:g} to {high:g}")
        return Fact(value, "estimated", SOURCE)

    def clusters(name: str) -> tuple[Cluster, ...]:
        found = []
        for cluster in device.clusters:
            one: dict[str, Any] = {name: fact(getattr(cluster, name), name)}
            if name == "clock_hz" and cluster.boost_hz is not None:
                scale = one[name].value / cluster.clock_hz.value
                one["boost_hz"] = Fact(cluster.boost_hz.value * scale, "estimated", SOURCE)
            found.append(replace(cluster, **one))
        return tuple(found)

    if key == "memory_bandwidth":
        bus = fact(device.bandwidth, "bandwidth")
        scale = bus.value / device.bandwidth.value
        read = {
            n: Fact(f.value * scale, "estimated", SOURCE) for n, f in device.read_bandwidth.items()
        }
        return replace(device, bandwidth=bus, read_bandwidth=read)
    if key == "cache":
        caches = {level: fact(f, "caches") for level, f in device.caches.items()}
        return replace(device, caches=caches)
    if key == "memory":
        return replace(device, memory_bytes=fact(device.memory_bytes, "memory_bytes"))
    if key in ("idle", "load"):
        old = getattr(device, f"{key}_watts")
        if old is None:
            return device
        watts: dict[str, Any] = {f"{key}_watts": fact(old, f"{key}_watts")}
        found = replace(device, **watts)
        idle, load = found.idle_watts, found.load_watts
        if check and idle and load and idle.value > load.value:
            raise BadInput(f"idle would be {idle.value:g} W, more than load, {load.value:g} W")
        return found
    names = {"clock": "clock_hz", "int8": "int8_per_cycle", "float32": "float32_per_cycle"}
    return replace(device, clusters=clusters(names[key]))


def _new(old: float, text: str, key: str) -> float:
    """Of "2x" so many times the old value, else the value itself with its unit."""
    found = re.fullmatch(r"([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([a-z/]*)", text.lower())
    try:
        number = float(found[1]) if found else math.nan
    except ValueError:
        number = math.nan
    unit = found[2] if found else ""
    if not math.isfinite(number) or not (unit == "x" or unit in UNITS):
        raise BadInput(f"cannot read {key}={text}; write it like {key}=2x or with a plain number")
    return old * number if unit == "x" else number * UNITS[unit]


def _with_cores(device: Device, text: str) -> Device:
    """More cores ("+4xA76@2.4" GHz), or so many times those of every cluster ("2x")."""
    if scale := re.fullmatch(r"(\d+(?:\.\d+)?)x", text):
        clusters = [
            replace(c, count=_count(c.count.value * float(scale[1]), text)) for c in device.clusters
        ]
    elif more := re.fullmatch(r"\+(\d{1,9})x([A-Za-z0-9.+-]+)@(\d+(?:\.\d+)?)", text):
        count, name, hertz = int(more[1]), more[2].lower(), 1e9 * float(more[3])
        alike = [c for c in device.clusters if c.core.endswith(name)]
        model = alike[0] if alike else replace(device.clusters[0], core=f"cortex-{name}")
        low, high = limits("clock_hz")
        if not low <= hertz <= high:
            raise BadInput(
                f"cores={text}: a clock must be from {low / 1e9:g} to {high / 1e9:g} GHz"
            )
        clock = Fact(hertz, "estimated", SOURCE)
        added = replace(model, count=_count(count, text), clock_hz=clock, boost_hz=None)
        clusters = [*device.clusters, added]
    else:
        raise BadInput(f"cannot read cores={text}; write it like cores=+4xA76@2.4 or cores=2x")
    total = sum(c.count.value for c in clusters)
    if total > MOST_CORES:
        raise BadInput(f"cores={text} makes {total:g} cores, must be at most {MOST_CORES}")
    clusters.sort(key=lambda c: -c.clock_hz.value * c.float32_per_cycle.value)
    return replace(device, clusters=tuple(clusters), load_watts=_load(device, clusters))


def _count(value: float, text: str) -> Fact:
    if value < 1 or value != int(value):
        raise BadInput(f"cores={text} makes {value:g} cores of a cluster, must be a whole number")
    return Fact(value, "estimated", SOURCE)


def _load(device: Device, clusters: Sequence[Cluster]) -> Fact | None:
    """Load power that grows with the cores as the energy model weighs them."""
    if device.load_watts is None or device.idle_watts is None:
        return device.load_watts
    grown = watts.core_power(clusters) / watts.core_power(device.clusters)
    idle, load = device.idle_watts.value, device.load_watts.value
    return Fact(idle + (load - idle) * grown, "estimated", SOURCE)
