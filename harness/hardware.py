"""A device with so many threads -> what of its facts the model of speed needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness import roofline
from harness.arrays import Floats
from harness.ours import ENGINE
from harness.roofline import Fit
from harness.supply import columns
from targets.profile import Cluster, Device, clock, last_cache, used

SHARE = {  # by category: which machines reach what part of their bus; others go by their cores
    "phone": "phone",
    "sbc": "arm_board",
    "jetson": "arm_board",
}
AVX2_ONLY = ("lm_studio", "tmac", "bitnet", "rwkv")  # whose x86 code stops there
LOOKUPS = ("tmac",)  # look products up with instructions that every NEON has
CORES_OF_A_PORT = 6  # at most, in an Apple cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A device with so many threads: one entry of arrays.Machines."""

    cores: Floats
    hertz: Floats
    slowest: Floats
    first: int
    threads: float
    bus: float
    bus_share: int
    fabric: float
    read_one: float
    read_all: float
    near: float
    cache: float
    int8_peak: float
    float_peak: float
    flags: frozenset[str]


def of(device: Device, threads: int, fit: Fit) -> Hardware:
    """The facts of the cores that so many threads use, and of what they share."""
    families = [fit.names[i].partition(".")[2] for i in columns(fit.names, "core_speed")]
    count, hertz = np.zeros(len(families)), np.zeros(len(families))
    slowest = np.full(len(families), np.inf)
    taken = used(device, threads)
    column = [families.index(_family(cluster)) for cluster, _ in taken]
    for (cluster, n), i in zip(taken, column, strict=True):
        count[i] += n
        hertz[i] += n * clock(cluster, n)
        slowest[i] = min(slowest[i], clock(cluster, n))
    return Hardware(
        cores=count,
        hertz=hertz,
        slowest=slowest,
        first=column[0],
        threads=threads,
        bus=device.bandwidth.value,
        bus_share=fit.index(f"bus_share.{_share(device)}"),
        fabric=_ports(device, threads),
        read_one=_read(device, 1),
        read_all=_read(device, threads),
        near=device.caches["l2"].value * threads / device.cores if "l2" in device.caches else 0.0,
        cache=last_cache(device),
        int8_peak=sum(n * clock(c, n) * c.int8_per_cycle.value for c, n in taken),
        float_peak=sum(n * clock(c, n) * c.float32_per_cycle.value for c, n in taken),
        flags=_flags(device, threads),
    )


def isa(device: Device, threads: int, engine: str = ENGINE) -> str:
    """What all the cores that so many threads use have, as far as the engine's code uses it.

    A key of the constants `isa.*`.
    """
    return usable(_flags(device, threads), engine)


def _flags(device: Device, threads: int) -> frozenset[str]:
    return frozenset.intersection(*(frozenset(c.isa) for c, _ in used(device, threads)))


def usable(flags: frozenset[str], engine: str) -> str:
    """The widest of these instruction sets that an engine's code uses, as in `isa.*`."""
    if engine in AVX2_ONLY:
        flags -= {"avx512-vnni"}
    if engine in LOOKUPS and "neon" in flags:
        flags |= {"dotprod"}
    for flag, name in (("avx512-vnni", "avx512vnni"), ("avx2", "avx2"), ("dotprod", "dotprod")):
        if flag in flags:
            return name
    return "neon" if "neon" in flags else "scalar"


def _family(cluster: Cluster) -> str:
    """Of an unknown core: the family of like width."""
    if known := roofline.family("core", cluster.core):
        return known
    wide = cluster.float32_per_cycle.value
    if "avx512" in cluster.isa:
        return "zen"
    if "avx2" in cluster.isa:
        return "intel_old"
    return "little" if wide <= 8 else "a76" if wide <= 16 else "x"


def _share(device: Device) -> str:
    core = _family(device.clusters[0])
    if core in ("apple", "apple_little", "oryon") and device.category != "phone":
        return "apple" if core.startswith("apple") else "oryon"
    if core in ("zen", "intel", "intel_old", "gracemont"):
        return "x86"
    return SHARE.get(device.category, "arm_board")


def _ports(device: Device, threads: int) -> float:
    """Clusters of the fastest cores that so many threads keep busy, where each is a bottleneck.

    Apple's: about 100 GB/s a cluster whatever the bus; the system spreads threads over them.
    """
    cluster = device.clusters[0]
    if _family(cluster) != "apple":
        return 0.0
    return float(min(threads, max(1, math.ceil(cluster.count.value / CORES_OF_A_PORT))))


def _read(device: Device, threads: int) -> float:
    """Measured bandwidth with so many threads, between known counts by interpolation."""
    known = device.read_bandwidth
    if not known or (threads > 1 and max(known) == 1) or threads < min(known):
        return math.nan
    counts = sorted(known)
    return float(np.interp(threads, counts, [known[c].value for c in counts]))
