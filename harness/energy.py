"""Seconds -> joules: by a model of idle, load and traffic, or read from a meter.

The model says how a machine's power divides; what a meter read always beats it.

    joules = seconds x (idle + (load - idle) x share of the active cores)
             + bytes x energy per byte + operations x energy per operation
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import watts
from harness.cores import read as text_of
from harness.errors import BadInput, NoMeter
from harness.records import Evidence, Failed, Measured, Projected, Workload
from harness.stats import median
from targets.profile import Device

MODEL = "power-2"
DOUBT = math.log(1.45)  # of the power, as half of a 90 % interval; see tests/test_energy.py
RAPL_HZ = 1000.0  # Intel SDM volume 3, 16.10: the counter moves about every millisecond


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """An instrument that counts joules of a part of the machine.

    read_joules: joules since the meter was made, never decreasing; raises NoMeter
    rate_hz: how often its number changes
    """

    name: str
    method: str
    rate_hz: float
    read_joules: Callable[[], float]


def modelled(
    seconds: Evidence, workload: Workload, device: Device, threads: int
) -> Projected | Failed:
    """Joules of the run that takes these seconds, at the wall where the profile's watts are.

    Fails when the seconds did, or when the profile states no idle and load power. The interval
    joins that of the seconds with a factor for the power. Raises BadInput when threads < 1.
    """
    if threads < 1:
        raise BadInput(f"threads must be at least 1, got {threads}")
    if isinstance(seconds, Failed):
        return Failed(reason=seconds.reason)
    if isinstance(seconds, Measured):
        taken = low = high = median(seconds.samples)
    else:
        taken, low, high = seconds.value, seconds.low, seconds.high
    steps = workload.tokens if workload.phase == "decode" else 1
    return of_run(
        (taken, low, high),
        device,
        threads,
        traffic_joules=steps * watts.traffic_joules(workload, device),
        operations_joules=steps * watts.operation_joules(workload),
    )


def of_run(
    seconds: tuple[float, float, float],
    device: Device,
    threads: int,
    *,
    traffic_joules: float,
    operations_joules: float,
) -> Projected | Failed:
    """Joules of a run that takes `seconds` (likely, least, most), by what it moves and computes.

    Fails when the profile states no idle and load power.
    """
    if device.idle_watts is None or device.load_watts is None:
        return Failed(reason=f"no power model: {device.name} states no idle_watts and load_watts")
    taken, low, high = seconds
    idle, load = device.idle_watts.value, device.load_watts.value
    parts = {
        "idle": taken * idle,
        "cores": taken * (load - idle) * watts.active_share(device, threads),
        "memory": traffic_joules,
        "operations": operations_joules,
    }
    value = sum(parts.values())
    estimated = [f.kind == "estimated" for f in (device.idle_watts, device.load_watts)]
    doubt = DOUBT * (1.5 if any(estimated) else 1.0)
    return Projected(
        value=value,
        low=value * math.exp(-math.hypot(doubt, math.log(taken / low))),
        high=value * math.exp(math.hypot(doubt, math.log(high / taken))),
        model=MODEL,
        bound=max(parts, key=lambda k: parts[k]),
        flags=("power of the device is an estimate",) if any(estimated) else (),
    )


def meters(sysfs: Path = Path("/sys")) -> tuple[Meter, ...]:
    """The meters this machine has, whether or not they may be read; empty where there is none.

    RAPL as Linux shows it in powercap: each package, the platform ("psys"), and each package's
    memory, which the package leaves out.
    """
    zones = sorted((sysfs / "class" / "powercap").glob("intel-rapl:*"))
    found = []
    for zone in zones:
        name = text_of(zone / "name")
        top = zone.name.count(":") == 1
        if name and (top or name == "dram"):
            parent = "" if top else text_of(zone.parent / zone.name.rpartition(":")[0] / "name")
            label = f"{parent} {name}".strip()
            found.append(Meter(name=label, method="rapl", rate_hz=RAPL_HZ, read_joules=_rapl(zone)))
    return tuple(found)


def mean_watts(meter: Meter, seconds: float) -> float:
    """Mean power while this process sleeps: the baseline to state beside a measurement.

    seconds: many times as long as the meter takes to change. Raises NoMeter when it cannot be read.
    """
    joules, start = meter.read_joules(), time.perf_counter()
    time.sleep(seconds)
    return (meter.read_joules() - joules) / (time.perf_counter() - start)


def _rapl(zone: Path) -> Callable[[], float]:
    """Joules since now of a powercap zone, whose counter starts over at its stated range."""
    last: int | None = None
    total = 0

    def read() -> float:
        nonlocal last, total
        count = _microjoules(zone / "energy_uj")
        if last is not None:
            passed = count - last
            total += passed if passed >= 0 else passed + _microjoules(zone / "max_energy_range_uj")
        last = count
        return total / 1e6

    return read


def _microjoules(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except PermissionError:
        raise NoMeter(
            f"{path} may be read by root only; allow it until the next start with "
            f"`sudo chmod a+r {path}`"
        ) from None
    except (OSError, ValueError) as error:
        raise NoMeter(f"{path} gives no number of microjoules: {error}") from None
