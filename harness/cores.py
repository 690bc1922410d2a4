"""/proc, /sys -> the cores this process may use, their names, their best order.

Every function reads below `root`, so that a copied tree stands for another machine. What
cannot be read is empty, never guessed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness.errors import HarnessError

ROOT = Path("/")

# MIDR_EL1 implementer and part. Linux arch/arm64/include/asm/cputype.h; util-linux
# sys-utils/lscpu-arm.c
_ARM_CORES = {
    "0x41": {
        "0xb76": "ARM1176",
        "0xc07": "Cortex-A7",
        "0xd03": "Cortex-A53",
        "0xd04": "Cortex-A35",
        "0xd05": "Cortex-A55",
        "0xd07": "Cortex-A57",
        "0xd08": "Cortex-A72",
        "0xd09": "Cortex-A73",
        "0xd0a": "Cortex-A75",
        "0xd0b": "Cortex-A76",
        "0xd0c": "Neoverse-N1",
        "0xd0d": "Cortex-A77",
        "0xd0e": "Cortex-A76AE",
        "0xd40": "Neoverse-V1",
        "0xd41": "Cortex-A78",
        "0xd42": "Cortex-A78AE",
        "0xd44": "Cortex-X1",
        "0xd46": "Cortex-A510",
        "0xd47": "Cortex-A710",
        "0xd48": "Cortex-X2",
        "0xd49": "Neoverse-N2",
        "0xd4b": "Cortex-A78C",
        "0xd4c": "Cortex-X1C",
        "0xd4d": "Cortex-A715",
        "0xd4e": "Cortex-X3",
        "0xd4f": "Neoverse-V2",
        "0xd80": "Cortex-A520",
        "0xd81": "Cortex-A720",
        "0xd82": "Cortex-X4",
        "0xd84": "Neoverse-V3",
        "0xd85": "Cortex-X925",
        "0xd87": "Cortex-A725",
    },
    "0x4e": {"0x004": "Carmel"},
    "0x51": {
        "0x001": "Oryon",
        "0x802": "Kryo-3XX-Gold",
        "0x803": "Kryo-3XX-Silver",
        "0x804": "Kryo-4XX-Gold",
        "0x805": "Kryo-4XX-Silver",
    },
    "0x61": {
        "0x022": "Icestorm-M1",
        "0x023": "Firestorm-M1",
        "0x032": "Blizzard-M2",
        "0x033": "Avalanche-M2",
    },
}


def read(path: Path) -> str:
    """The text of a file of the kernel, stripped; "" where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except OSError:
        return ""


def number(text: str) -> float | None:
    """The number a text starts with, e.g. of "3906 kB"."""
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return None


def command(root: Path, *words: str) -> str:
    """What a program of this machine prints; "" without the program, or for a copied tree."""
    if root != ROOT:
        return ""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()


def usable_cpus(root: Path = ROOT) -> tuple[int, ...]:
    """The CPU numbers this thread may run on; () where threads cannot be pinned."""
    for status in ("proc/thread-self/status", "proc/self/status"):
        for line in read(root / status).splitlines():
            key, _, value = line.partition(":")
            if key == "Cpus_allowed_list" and (allowed := cpu_list(value)):
                online = cpu_list(read(root / "sys/devices/system/cpu/online"))
                return tuple(c for c in allowed if c in online or not online)
    if root == ROOT and hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return ()


def quota_cores(root: Path = ROOT) -> float | None:
    """CPU time per second that a control group grants [cores]; None without a limit."""
    pairs = [read(file).partition(" ")[::2] for file in control(root, "cpu", "cpu.max")]
    for file in control(root, "cpu", "cpu.cfs_quota_us"):
        pairs.append((read(file), read(file.with_name("cpu.cfs_period_us"))))
    grants = [(number(limit) or 0.0, number(period) or 0.0) for limit, period in pairs]
    return min((limit / period for limit, period in grants if limit > 0 < period), default=None)


def usable_cores(root: Path = ROOT) -> int:
    """Threads that can run at full speed at once: the affinity, cut by a container's quota."""
    cpus = len(usable_cpus(root)) or (os.cpu_count() or 1 if root == ROOT else 1)
    quota = quota_cores(root)
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def control(root: Path, controller: str, file: str) -> tuple[Path, ...]:
    """A control file of this process's group and of each group above, where they exist.

    Looks in the unified tree and in the controller's own one (cgroup v1).
    """
    found: list[Path] = []
    # Inside a container the path may name a group of the host that is mounted as the top.
    for line in [*read(root / "proc/self/cgroup").splitlines(), "0::/", f"0:{controller}:/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        inside = [part for part in path.split("/") if part not in ("", "..")]
        found += [top.joinpath(*inside[:depth], file) for depth in range(len(inside), -1, -1)]
    return tuple(path for path in dict.fromkeys(found) if path.is_file())


def affinity_for(threads: int, root: Path = ROOT) -> tuple[int, ...]:
    """The CPUs to pin so many threads to: big cores first, second hardware threads last.

    () where threads cannot be pinned. Raises HarnessError when there are too few CPUs.
    """
    cpus = usable_cpus(root)
    if not cpus and threads > 0:
        return ()
    if not 1 <= threads <= len(cpus):
        raise HarnessError(f"cannot pin {threads} threads: this process may use CPUs {cpus}")

    def rank(cpu: int) -> tuple[int, float, int]:
        return _turn(cpu, cpus, root), -_capacity(cpu, root), cpu

    return tuple(sorted(cpus, key=rank)[:threads])


def physical(cpus: tuple[int, ...], root: Path = ROOT) -> int:
    """How many cores these CPUs are; two hardware threads of one core count once."""
    return sum(_turn(cpu, cpus, root) == 0 for cpu in cpus)


def pin(cpus: tuple[int, ...], thread: int = 0) -> None:
    """Keep a thread, by default the calling one, on these CPUs, where the system can; () leaves
    it free.
    """
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(thread, cpus)


def clusters(root: Path = ROOT) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Name and usable CPUs of each kind of core, fastest first; name "" where unknown."""
    names = core_names(root)
    is_arm = any(names.values())
    kinds: dict[tuple[float, str], list[int]] = {}
    for cpu in affinity_for(len(usable_cpus(root)), root) if usable_cpus(root) else ():
        # On x86 the best clocks differ between equal cores, so only the kind tells them apart.
        speed = _capacity(cpu, root) if is_arm else 0.0
        kinds.setdefault((-speed, names.get(cpu, "")), []).append(cpu)
    return tuple((name, tuple(sorted(kinds[speed, name]))) for speed, name in kinds)


def core_names(root: Path = ROOT) -> dict[int, str]:
    """CPU number -> name of its kind of core: ARM's part number, or Intel's hybrid kind."""
    found: dict[int, str] = {}
    cpu, implementer = -1, ""
    for line in read(root / "proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdecimal():
            cpu = int(value)
        elif key == "CPU implementer":
            implementer = value.lower()
        elif key == "CPU part":
            found[cpu] = _ARM_CORES.get(implementer, {}).get(value.lower(), "")
    for folder, kind in (("cpu_core", "performance"), ("cpu_atom", "efficient")):
        found |= dict.fromkeys(cpu_list(read(root / "sys/devices" / folder / "cpus")), kind)
    return found


def _turn(cpu: int, cpus: tuple[int, ...], root: Path) -> int:
    """0 for the first of `cpus` on its core, 1 for the second hardware thread."""
    place = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    siblings = [other for other in cpu_list(read(place)) if other in cpus]
    return siblings.index(cpu) if cpu in siblings else 0


def _capacity(cpu: int, root: Path) -> float:
    """Relative speed of a core, as the kernel's scheduler sees it, or else its top clock."""
    place = root / f"sys/devices/system/cpu/cpu{cpu}"
    files = (place / "cpu_capacity", place / "cpufreq/cpuinfo_max_freq")
    return next((speed for file in files if (speed := number(read(file)))), 0.0)


def cpu_list(text: str) -> tuple[int, ...]:
    """The kernel's "0-3,8" as numbers."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal():
            found += range(int(first), int(last if last.isdecimal() else first) + 1)
    return tuple(found)
