"""/proc, /sys -> what the machine is called, holds and feels like.

Every function reads below `root`, so that a copied tree stands for another machine. What
cannot be read is "", None or empty, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from harness.cores import ROOT, command, control, core_names, cpu_list, number, read

CPUS = "sys/devices/system/cpu"
_CHIP_SENSORS = ("cpu", "soc", "pkg", "coretemp", "k10temp", "zenpower", "package")
# bits of the firmware's answer: Raspberry Pi documentation, "vcgencmd get_throttled"
_THROTTLED = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


def hostname(root: Path = ROOT) -> str:
    """The name of the machine."""
    return read(root / "proc/sys/kernel/hostname") or command(root, "hostname")


def identity(root: Path = ROOT) -> tuple[str, ...]:
    """Texts by which this machine can be recognised: board, SoC, CPU model."""
    tree = root / "proc/device-tree"
    texts = (
        read(tree / "model"),
        *read(tree / "compatible").split("\0"),
        *_cpuinfo(root, "model name", "Model", "Hardware"),
        command(root, "sysctl", "-n", "machdep.cpu.brand_string"),
        command(root, "getprop", "ro.soc.model"),
    )
    return tuple(text for text in dict.fromkeys(texts) if text)


def cpu_model(root: Path = ROOT) -> str:
    """The CPU's name: its model where it has one, else its cores and the board."""
    if models := _cpuinfo(root, "model name"):
        return models[0]
    counted = Counter(name for name in core_names(root).values() if name)
    cores = " + ".join(f"{count}x {name}" for name, count in sorted(counted.items(), reverse=True))
    board = next(iter(identity(root)), "")
    return f"{cores} ({board})" if cores and board else cores or board


def memory_bytes(root: Path = ROOT) -> int:
    """Memory this process may use, the machine's cut by a control group's limit; 0: unknown."""
    total = _meminfo(root, "MemTotal")
    if total is None and root == ROOT:
        total = psutil.virtual_memory().total
    limits = [limit for limit, _ in _memory_limits(root)]
    return min(limits if total is None else [total, *limits], default=0)


def available_bytes(root: Path = ROOT) -> int:
    """Memory this process could still take without pushing others out; 0: unknown."""
    free = _meminfo(root, "MemAvailable")
    if free is None and root == ROOT:
        free = psutil.virtual_memory().available
    left = [max(0, limit - held) for limit, held in _memory_limits(root)]
    return min(left if free is None else [free, *left], default=0)


def caches(cpu: int, root: Path = ROOT) -> dict[str, int]:
    """Bytes of each data cache that one CPU sees, by "l1d", "l2", "l3"."""
    found = {level: size for level, size, _ in _caches(cpu, root)}
    if found:
        return found
    for line in command(root, "lscpu", "-B", "--caches=NAME,ONE-SIZE").splitlines()[1:]:
        name, _, size = line.partition(" ")
        if name != "L1i" and size.strip().isdecimal():
            found[name.lower()] = int(size)
    for level in ("l1d", "l2", "l3"):
        for key in (f"hw.perflevel0.{level}cachesize", f"hw.{level}cachesize"):
            size = command(root, "sysctl", "-n", key)
            if size.isdecimal() and int(size):
                found.setdefault(level, int(size))
    return found


def total_caches(cpus: tuple[int, ...], root: Path = ROOT) -> dict[str, int]:
    """Bytes of each level of cache over these CPUs, a shared one counted once; l1d of one."""
    instances = {entry for cpu in cpus for entry in _caches(cpu, root)}
    total: dict[str, int] = {}
    for level, size, _ in instances:
        total[level] = (
            max(total.get(level, 0), size) if level == "l1d" else (total.get(level, 0) + size)
        )
    return total or caches(cpus[0] if cpus else 0, root)


def governor(cpu: int, root: Path = ROOT) -> str:
    """What chooses the clock of this CPU, e.g. "performance"."""
    return read(root / CPUS / f"cpu{cpu}/cpufreq/scaling_governor")


def clock_hz(cpu: int, root: Path = ROOT) -> float | None:
    """The clock of this CPU now; None where the system does not tell.

    The "cpu MHz" of /proc/cpuinfo does not count: without cpufreq it is the nominal clock.
    """
    kilohertz = number(read(root / CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq"))
    return None if kilohertz is None else kilohertz * 1e3


def temperature_celsius(root: Path = ROOT) -> float | None:
    """The hottest sensor of the chip; None where there is none."""
    found = []
    for folder, name, value in (
        ("sys/class/thermal", "type", "temp"),
        ("sys/class/hwmon", "name", "temp*_input"),
    ):
        for place in _entries(root / folder):
            if any(word in read(place / name).lower() for word in _CHIP_SENSORS):
                found += [number(read(file)) for file in sorted(place.glob(value))]
    celsius = [value / 1000 for value in found if value is not None]
    return max((value for value in celsius if -40 < value < 150), default=None)


def throttled(root: Path = ROOT) -> tuple[str, ...]:
    """What a Raspberry Pi's firmware holds back, now or since it started; () elsewhere."""
    text = read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    text = text or command(root, "vcgencmd", "get_throttled").partition("=")[2]
    try:
        bits = int(text, 16)
    except ValueError:
        return ()
    now = [name for bit, name in _THROTTLED.items() if bits >> bit & 1]
    past = [f"{name} since start" for bit, name in _THROTTLED.items() if bits >> bit + 16 & 1]
    return tuple(now or past)


def on_battery(root: Path = ROOT) -> bool:
    """Whether a battery drives the machine now."""
    for place in _entries(root / "sys/class/power_supply"):
        if read(place / "type") == "Battery" and read(place / "status") == "Discharging":
            return True
    return command(root, "pmset", "-g", "batt").startswith("Now drawing from 'Battery")


def has_battery(root: Path = ROOT) -> bool:
    """Whether the machine has a battery of its own."""
    places = _entries(root / "sys/class/power_supply")
    named = any(read(place / "type") == "Battery" for place in places)
    return named or "InternalBattery" in command(root, "pmset", "-g", "batt")


def isa(root: Path = ROOT) -> tuple[str, ...]:
    """The vector extensions that matter here, from the CPU's own list."""
    listed = next(iter(_cpuinfo(root, "flags", "Features")), "").split()
    return tuple(name for flag, name in _VECTOR_FLAGS.items() if flag in listed)


_VECTOR_FLAGS: Mapping[str, str] = {
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve": "sve",
    "sve2": "sve2",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx_vnni": "avx-vnni",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx512_bf16": "avx512-bf16",
    "amx_int8": "amx-int8",
}


def _caches(cpu: int, root: Path) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    for place in _entries(root / CPUS / f"cpu{cpu}/cache"):
        kind, level, size = read(place / "type"), read(place / "level"), read(place / "size")
        scale = {"K": 1024, "M": 1024**2}.get(size[-1:], 1)
        digits = size.rstrip("KM")
        if kind in ("Data", "Unified") and digits.isdecimal():
            name = f"l{level}d" if level == "1" else f"l{level}"
            yield name, int(digits) * scale, cpu_list(read(place / "shared_cpu_list"))


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and what is held of it, of each control group that has one [B]."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        for file in control(root, "memory", name):
            if (limit := read(file)).isdecimal():
                stat = read(file.with_name("memory.stat"))
                # The page cache counts against a group too, but is given back on demand.
                yield int(limit), _field(stat, "anon") or _field(stat, "total_rss") or 0


def _meminfo(root: Path, key: str) -> int | None:
    kilobytes = _field(read(root / "proc/meminfo"), f"{key}:")
    return None if kilobytes is None else kilobytes * 1024


def _field(text: str, key: str) -> int | None:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key and (found := number(value)) is not None:
            return int(found)
    return None


def _cpuinfo(root: Path, *keys: str) -> list[str]:
    lines = (line.partition(":") for line in read(root / "proc/cpuinfo").splitlines())
    return [value.strip() for key, _, value in lines if key.strip() in keys and value.strip()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
