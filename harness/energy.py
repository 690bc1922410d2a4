"""Seconds -> joules: by a model of idle, load and traffic, or read from a meter.

The model says how a machine's power divides; what a meter read always beats it.

    joules = seconds x (idle + (load - idle) x share of the active cores)
             + bytes x energy per byte + operations x energy per operation
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput, NoMeter
from harness.records import Evidence, Failed, Measured, Projected, Workload
from harness.stats import median
from targets.profile import Cluster, Device, used

MODEL = "power-1"
DOUBT = math.log(1.45)  # of the power, as half of a 90 % interval; see tests/test_energy.py
JOULES_PER_BIT = {  # from memory to the core, by the memory such machines have
    # LPDDR4, device alone, measured: https://github.com/Dongyunkam/DRAM_info
    "sbc": 13.5e-12,
    "mcu": 50e-12,  # a judgement: PSRAM at 1.8 to 3.3 V over a few wires
    # LPDDR5-6400 and LPDDR5X-8533 with controller, engineering estimates in open documents
    "jetson": 9e-12,
    "laptop": 9e-12,
    "phone": 7.5e-12,
    # DDR5-4800 with controller, an engineering estimate in open documents
    "minipc": 14e-12,
    "desktop": 14e-12,
    "server": 14e-12,
}
# A judgement: wires are shorter within the chip. Horowitz, ISSCC 2014, has about this ratio.
CACHE_SHARE = 0.2
# An 8-bit multiply and add cost 0.23 pJ at 45 nm (Horowitz, ISSCC 2014), about a quarter of it
# at 7 nm; a float32 one about 4.6 pJ and 1.2. Fetching the instruction is within the core's load.
JOULES_PER_OPERATION = {"int8": 0.03e-12, "float32": 0.6e-12}
# Energy of a cycle grows with the width of the core: the device trees of RK3588 and Tensor G1
# (torvalds/linux, dynamic-power-coefficient) give 0.06 nJ for an A55, 0.27-0.41 for an A76 and
# 0.73 for an X1, which have 8, 16 and 32 float32 operations per cycle.
WIDTH_POWER = 1.5
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
        traffic_joules=steps * traffic_joules(workload, device),
        operations_joules=steps * operation_joules(workload),
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
        "cores": taken * (load - idle) * active_share(device, threads),
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


def active_share(device: Device, threads: int) -> float:
    """The part of the power of all cores that so many busy ones draw, fastest first."""
    busy = sum(n * _core_power(cluster) for cluster, n in used(device, threads))
    return busy / core_power(device.clusters)


def core_power(clusters: Iterable[Cluster]) -> float:
    """Power of all cores when busy, in a unit of its own."""
    return sum(cluster.count.value * _core_power(cluster) for cluster in clusters)


def _core_power(cluster: Cluster) -> float:
    return cluster.clock_hz.value * float(cluster.float32_per_cycle.value**WIDTH_POWER)


def traffic_joules(workload: Workload, device: Device) -> float:
    """Of moving the weights and the state of one step."""
    return memory_joules(workload.weight_bytes + workload.state_bytes, device)


def memory_joules(step_bytes: float, device: Device) -> float:
    """Of moving the bytes of a step, from memory, or from the last cache if they stay there."""
    last = max((f.value for level, f in device.caches.items() if level != "l1d"), default=0.0)
    share = CACHE_SHARE if step_bytes <= last else 1.0
    return 8 * step_bytes * JOULES_PER_BIT[device.category] * share


def operation_joules(workload: Workload) -> float:
    """Of the arithmetic of one step."""
    return sum(
        call.count * call.operations * JOULES_PER_OPERATION[call.arithmetic]
        for call in workload.calls
    )


def meters(sysfs: Path = Path("/sys")) -> tuple[Meter, ...]:
    """The meters this machine has, whether or not they may be read; empty where there is none.

    RAPL as Linux shows it in powercap: each package, the platform ("psys"), and each package's
    memory, which the package leaves out.
    """
    zones = sorted((sysfs / "class" / "powercap").glob("intel-rapl:*"))
    found = []
    for zone in zones:
        name = _line(zone / "name")
        top = zone.name.count(":") == 1
        if name and (top or name == "dram"):
            parent = "" if top else _line(zone.parent / zone.name.rpartition(":")[0] / "name")
            label = f"{parent} {name}".strip()
            found.append(Meter(name=label, method="rapl", rate_hz=RAPL_HZ, read_joules=_rapl(zone)))
    return tuple(found)


def idle_watts(meter: Meter, seconds: float = 2.0) -> float:
    """Mean power while this process sleeps: the baseline to state beside a measurement.

    Raises NoMeter when the meter cannot be read, BadInput when seconds is too short for it.
    """
    if seconds < 10 / meter.rate_hz:
        raise BadInput(
            f"{seconds:g} s is too short for {meter.name}, which changes {meter.rate_hz:g} times a "
            f"second; give at least {10 / meter.rate_hz:g} s"
        )
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


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
