"""This machine -> how quiet it is, as flags for people."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

from harness import stats

OTHERS_CORES = 0.1  # more than this by other processes shows in timings of all cores
STEAL_SHARE = 0.01
VARIATION = 0.10  # of a loop of 2 ms; on an idle machine it stays below a few per cent
SPINS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What disturbs a timing on this machine.

    others_cores: CPU seconds a second that other processes took
    steal_share:  of the CPU time, what a hypervisor gave to others
    load:         mean number of runnable threads over the last minute
    variation:    of a fixed loop, ninth decile over fastest, less 1
    """

    others_cores: float
    steal_share: float
    load: float
    cpus: int
    variation: float
    busiest: tuple[str, ...] = ()  # names of the others that took most


def quiet(seconds: float = 1.0) -> tuple[str, ...]:
    """What makes this machine unfit for timing now; empty when it is quiet."""
    return flags(listen(seconds))


def flags(noise: Noise) -> tuple[str, ...]:
    """One short sentence for each kind of noise that is too loud."""
    found = []
    if noise.others_cores > OTHERS_CORES:
        names = f" ({', '.join(noise.busiest)})" if noise.busiest else ""
        found.append(f"busy: {noise.others_cores:.1f} cores used by others{names}")
    if noise.steal_share > STEAL_SHARE:
        found.append(f"steal: {noise.steal_share:.0%} of the CPU time went to other guests")
    if noise.load > noise.cpus:
        found.append(f"load average {noise.load:.1f} on {noise.cpus} CPUs")
    if noise.variation > VARIATION:
        found.append(f"uneven: a fixed loop varies by {noise.variation:.0%}")
    return tuple(found)


def listen(seconds: float = 1.0) -> Noise:
    """Watch the machine for so many seconds, then time a fixed loop."""
    own = psutil.Process()
    before, steal_before, ours_before, each_before = *_totals(), _taken(own), _by_process()
    start = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - start
    after, steal_after, ours_after, each_after = *_totals(), _taken(own), _by_process()
    cpus = psutil.cpu_count() or 1
    others = max(0.0, after - before - (ours_after - ours_before)) / elapsed
    used = {key: each_after[key] - each_before.get(key, each_after[key]) for key in each_after}
    loudest = sorted(used, key=lambda key: -used[key])[:3]
    return Noise(
        others_cores=others,
        steal_share=(steal_after - steal_before) / elapsed / cpus,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        cpus=cpus,
        variation=_variation(),
        busiest=tuple(name for pid, name in loudest if used[pid, name] > OTHERS_CORES * elapsed),
    )


def _totals() -> tuple[float, float]:
    """CPU seconds in use and stolen since the machine started, over all CPUs."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError):  # Android hides /proc/stat
        return 0.0, 0.0
    waits = times.idle + getattr(times, "iowait", 0.0)
    steal = float(getattr(times, "steal", 0.0))
    # A guest's time is contained in `user` already.
    inside = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - waits - steal - inside), steal


def _taken(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _by_process() -> dict[tuple[int, str], float]:
    """CPU seconds so far of every other process that may be looked at."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid():
                found[process.pid, process.name()] = _taken(process)
        except (psutil.Error, OSError):
            continue
    return found


def _variation() -> float:
    times = []
    for _ in range(SPINS):
        start = time.perf_counter()
        sum(range(50_000))
        times.append(time.perf_counter() - start)
    return (stats.p90(times) or max(times)) / min(times) - 1
