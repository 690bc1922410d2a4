"""This machine -> a report for people, or a device profile."""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from harness import machine, stats
from harness import meters as instruments
from harness.cores import ROOT, clusters, cpu_list, physical, quota_cores, read
from harness.energy import meters
from harness.errors import HarnessError, NoMeter
from harness.host import describe
from harness.limits import Samples, cached, measure, medians
from harness.quiet import quiet
from harness.records import Environment
from targets import profile
from targets.profile import Category, Cluster, Device, Fact

LOW_BYTES = 512 * 2**20
HOT_CELSIUS = 80.0  # a Raspberry Pi lowers its clock from here (its documentation)
# SMBIOS 3.6, table 17, "System Enclosure or Chassis Types"
_CHASSIS: Mapping[str, Category] = {
    **dict.fromkeys(("8", "9", "10", "14", "30", "31", "32"), "laptop"),
    **dict.fromkeys(("3", "4", "5", "6", "7", "13", "15", "16"), "desktop"),
    **dict.fromkeys(("34", "35", "36"), "minipc"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `edgewise doctor` tells.

    environment: with the median of each limit
    samples:     rounds of each limit
    noise:       what disturbs timings now
    meters:      names of the energy meters, with what keeps one from being read
    warnings:    what makes timings here worse than the machine is
    """

    environment: Environment
    samples: Samples
    noise: tuple[str, ...]
    meters: tuple[str, ...]
    warnings: tuple[str, ...]


def doctor(seconds: float = 25.0, fresh: bool = False, devices: Path | None = None) -> Report:
    """Look the machine over; limits less than an hour old are used again unless `fresh`."""
    noise = quiet()
    samples = measure(seconds) if fresh else cached(seconds)
    environment = replace(describe(devices=devices), limits=medians(samples))
    return Report(
        environment=environment,
        samples=samples,
        noise=noise,
        meters=meter_names(),
        warnings=(*warnings(environment), *_uneven(samples)),
    )


def warnings(
    environment: Environment, root: Path = ROOT, pointer_bytes: int = struct.calcsize("P")
) -> tuple[str, ...]:
    """One short sentence for each thing about this machine that spoils timings."""
    found = []
    if pointer_bytes < 8:
        found.append(f"{8 * pointer_bytes}-bit Python: kernels need a 64-bit system")
    free = machine.available_bytes(root)
    if 0 < free < LOW_BYTES:
        found.append(f"only {free / 2**20:.0f} MiB of memory are free")
    if environment.governor not in ("", "performance"):
        found.append(f'governor is "{environment.governor}": "performance" keeps the clock steady')
    if machine.on_battery(root):
        found.append("runs on battery: clocks may be held back")
    if (quota := quota_cores(root)) is not None:
        found.append(f"a container or service grants only {quota:g} cores of CPU time")
    online = cpu_list(read(root / "sys/devices/system/cpu/online"))
    if environment.affinity and len(environment.affinity) < len(online):
        found.append(f"may use only CPUs {environment.affinity} of {len(online)}")
    found += [f"the firmware reports: {what}" for what in machine.throttled(root)]
    if environment.temperature_celsius and environment.temperature_celsius[-1] >= HOT_CELSIUS:
        found.append(f"hot: {environment.temperature_celsius[-1]:.0f} degrees Celsius")
    return tuple(found)


def device_toml(report: Report, root: Path = ROOT, command: str = "edgewise doctor --write") -> str:
    """A device profile of this machine, as `targets.profile.load` reads it.

    Facts that no program can read come from the profile of the device it was recognised as,
    else stand as "estimated" with the request to look them up. Raises HarnessError when the
    report lacks a limit.
    """
    here, today = report.environment, datetime.now(UTC).date()

    source = f"edgewise doctor on {today}, {command}"
    if report.noise:
        source += f" (disturbed: {'; '.join(report.noise)})"

    def measured(value: float) -> Fact:
        return Fact(value, "measured", source)

    def limit(key: str) -> float:
        if key not in here.limits:
            raise HarnessError(f"{key} was not measured; give doctor more seconds or memory")
        return here.limits[key]

    reads = {
        int(key.rpartition(".")[2]): measured(float(round(value)))
        for key, value in here.limits.items()
        if key.startswith("read_bytes_per_s.")
    }
    if not reads:
        limit("read_bytes_per_s.1")
    known = _known(here.device)
    most = max(fact.value for fact in reads.values())
    bandwidth = Fact(most, "estimated", f"the most {command} read; put the maker's number")
    if known and most <= known.bandwidth.value:
        bandwidth = known.bandwidth
    kinds = clusters(root) or (("", ()),)
    found = []
    for name, cpus in kinds:
        suffix = f"cpu{cpus[0]}" if len(kinds) > 1 else "1"
        together = physical(cpus, root) if len(kinds) > 1 else 1
        clock = limit(f"clock_hz.{suffix if len(kinds) > 1 else here.cores}")
        alone = limit(f"clock_hz.{suffix}") * together
        found.append(
            Cluster(
                core=name.lower() or platform.machine().lower() or "unknown",
                isa=machine.isa(root),
                count=measured(float(physical(cpus, root) or _cores_without_pinning())),
                clock_hz=measured(float(round(clock))),
                float32_per_cycle=measured(round(limit(f"float32_ops_per_s.{suffix}") / alone, 2)),
                int8_per_cycle=measured(round(limit(f"int8_ops_per_s.{suffix}") / alone, 2)),
                boost_hz=measured(float(round(alone))) if together == 1 and alone > clock else None,
            )
        )
    sizes = machine.total_caches(here.affinity, root)
    unknown_year = Fact(float(today.year), "estimated", "when this was written; put the maker's")
    return profile.text(
        Device(
            name=here.host,
            summary=f"{here.cpu or 'unknown CPU'}, {here.memory_bytes / 2**30:.1f} GiB",
            category=known.category if known else _category(root),
            soc=known.soc if known else here.cpu or "unknown",
            year=known.year if known else unknown_year,
            clusters=tuple(found),
            memory_bytes=measured(float(here.memory_bytes)),
            bandwidth=bandwidth,
            read_bandwidth=dict(sorted(reads.items())),
            caches={k: measured(float(v)) for k, v in sorted(sizes.items()) if k != "l4"},
            idle_watts=known.idle_watts if known else None,
            load_watts=known.load_watts if known else None,
            price_dollars=known.price_dollars if known else None,
            sustained_share=known.sustained_share if known else None,
            dram=known.dram if known else "",
            recognise=tuple(text for text in machine.identity(root)[:1] if len(text) > 3),
        )
    )


def _known(name: str) -> Device | None:
    return profile.load(name) if name in profile.names() else None


def _category(root: Path) -> Category:
    if read(root / "proc/device-tree/model"):
        return "sbc"
    if machine.has_battery(root):
        return "laptop"
    return _CHASSIS.get(read(root / "sys/class/dmi/id/chassis_type"), "server")


def _cores_without_pinning() -> int:
    return psutil.cpu_count(logical=False) or 1


def meter_names(sysfs: Path = Path("/sys")) -> tuple[str, ...]:
    """The energy meters of this machine, each with what keeps it from being read, if anything."""
    found = []
    for meter in (*meters(sysfs), *instruments.present(sysfs)):
        try:
            meter.read_joules()
            found.append(f"{meter.name} ({meter.method})")
        except NoMeter as error:
            found.append(f"{meter.name} ({meter.method}; not readable: {error})")
    return tuple(found)


def _uneven(samples: Samples) -> list[str]:
    spreads = {key: stats.spread(rounds) for key, rounds in samples.items()}
    return [
        f"{key} varies by {spread:.0%} from round to round"
        for key, spread in spreads.items()
        if spread > stats.UNSTEADY_SPREAD
    ]
