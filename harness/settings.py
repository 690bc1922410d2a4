"""Settings (work + device + threads + engine) -> Points: what the roofline needs, as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness import roofline
from harness.roofline import Fit, Floats, Points
from targets.profile import Cluster, Device, used

SHARE = {  # by category: which machines reach what part of their bus; others go by their cores
    "phone": "phone",
    "sbc": "arm_board",
    "jetson": "arm_board",
}


PEAK_SHARE = 0.8  # of the int8 or float32 peak: the best our matrix products reach, on one Zen 4
AVX2_ONLY = ("lm_studio", "tmac", "bitnet", "rwkv")  # whose x86 code stops there
LOOKUPS = ("tmac",)  # look products up with instructions that every NEON has
CORES_OF_A_PORT = 6  # at most, in an Apple cluster
_OTHERWISE = {"format": "q4", "numba_format": "f32"}  # a format of no family
KERNELS = {  # how an engine multiplies matrices in a prefill, unless a row says otherwise
    "numba": "numba",
    "llama_cpp": "repacked",
    "ik_llama": "tiled",
    "mnn": "mnn",
    "executorch": "xnnpack",
    "litert": "xnnpack",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a step asks of any machine, before engine and machine are known."""

    phase: str
    tokens: int  # of a step: 1 in a decode, the prompt in a prefill
    layers: int
    weights: Mapping[str, float]  # format -> multiply-adds with weights
    others: float  # multiply-adds without: attention, norms
    streamed_bytes: float  # weights and state read in a step
    resident_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One point to project."""

    work: Work
    device: Device
    threads: int
    engine: str
    kernel: str = ""  # of a prefill: "vector", "tiled", "repacked", ...; "" is the engine's usual


def points(settings: Sequence[Setting], fit: Fit) -> Points:
    """The settings as arrays for `roofline.seconds`."""
    cores = [_cores(s.device, s.threads, fit) for s in settings]
    hertz, first = np.stack([c.hertz for c in cores]), np.array([c.first for c in cores])
    prefill = [s.work.phase == "prefill" for s in settings]
    ours = [roofline.family("engine", s.engine) == "numba" for s in settings]
    return Points(
        cores=np.stack([c.count for c in cores]),
        hertz=hertz,
        slowest=np.stack([c.slowest for c in cores]),
        first=first,
        threads=np.array([s.threads for s in settings], float),
        bus=np.array([s.device.bandwidth.value for s in settings]),
        bus_share=np.array([fit.index(f"bus_share.{_share(s.device)}") for s in settings]),
        fabric=np.array([_ports(s.device, s.threads) for s in settings]),
        read_one=np.array([_read(s.device, 1) for s in settings]),
        read_all=np.array([_read(s.device, s.threads) for s in settings]),
        cache=np.array([_last_cache(s.device) for s in settings]),
        weights=np.stack([_weights(s, fit) for s in settings]),
        factors=np.array([_factors(s, fit) for s in settings]),
        floor=np.array([_floor(s) for s in settings]),
        others=np.array([s.work.others for s in settings]),
        other_cycles=np.array(
            [fit.index(f"other.attention_{'prefill' if p else 'decode'}") for p in prefill]
        ),
        streamed=np.array([s.work.streamed_bytes for s in settings]),
        resident=np.array([s.work.resident_bytes for s in settings]),
        prompt=np.array(
            [s.work.tokens if p else 0 for s, p in zip(settings, prefill, strict=True)], float
        ),
        layers=np.array([s.work.layers for s in settings], float),
        ours=np.array(ours),
    )


@dataclass(frozen=True, slots=True)
class _Cores:
    count: Floats
    hertz: Floats
    slowest: Floats
    first: int


def _cores(device: Device, threads: int, fit: Fit) -> _Cores:
    families = [fit.names[i].partition(".")[2] for i in roofline.columns(fit.names, "core_speed")]
    count, hertz = np.zeros(len(families)), np.zeros(len(families))
    slowest = np.full(len(families), np.inf)
    taken = used(device, threads)
    column = [families.index(_family(cluster)) for cluster, _ in taken]
    for (cluster, n), i in zip(taken, column, strict=True):
        count[i] += n
        hertz[i] += n * cluster.clock_hz.value
        slowest[i] = min(slowest[i], cluster.clock_hz.value)
    return _Cores(count, hertz, slowest, column[0])


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


def isa(device: Device, threads: int, engine: str = "numba") -> str:
    """What all the cores that so many threads use have, as far as the engine's code uses it.

    A key of the constants `isa.*`.
    """
    flags = set.intersection(*(set(cluster.isa) for cluster, _ in used(device, threads)))
    if engine in AVX2_ONLY:
        flags -= {"avx512-vnni"}
    if engine in LOOKUPS and "neon" in flags:
        flags |= {"dotprod"}
    for flag, name in (("avx512-vnni", "avx512vnni"), ("avx2", "avx2"), ("dotprod", "dotprod")):
        if flag in flags:
            return name
    return "neon" if "neon" in flags else "scalar"


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


def _last_cache(device: Device) -> float:
    return max((fact.value for level, fact in device.caches.items() if level != "l1d"), default=0.0)


def _weights(setting: Setting, fit: Fit) -> Floats:
    names = [fit.names[i] for i in roofline.formats(fit.names)]
    row = np.zeros(len(names))
    ours = roofline.family("engine", setting.engine) == "numba"
    for name, work in setting.work.weights.items():
        about = "numba_format" if ours else "format"
        row[names.index(f"{about}.{roofline.family(about, name) or _OTHERWISE[about]}")] += work
    return row


def _floor(setting: Setting) -> float:
    """Seconds at the highest share of the peak that a kernel reaches; 0 for other engines.

    Those may look products up instead of multiplying, or use matrix units.
    """
    if roofline.family("engine", setting.engine) != "numba":
        return 0.0
    taken = used(setting.device, setting.threads)
    int8 = sum(n * c.clock_hz.value * c.int8_per_cycle.value for c, n in taken)
    float32 = sum(n * c.clock_hz.value * c.float32_per_cycle.value for c, n in taken)
    peaks = {"int8": int8, "int4": int8, "ternary": int8}
    return sum(
        2 * work / (PEAK_SHARE * peaks.get(roofline.family("numba_format", name) or "", float32))
        for name, work in setting.work.weights.items()
    )


def _factors(setting: Setting, fit: Fit) -> list[int]:
    """Constants that multiply the cycles: isa, engine, pairs, and of a prefill kernel and i8mm."""
    one = fit.index("engine.numba")
    taken = used(setting.device, setting.threads)
    engine = roofline.family("engine", setting.engine) or "other"
    has = isa(setting.device, setting.threads, engine)
    found = [fit.index(f"isa.{has}"), fit.index(f"engine.{engine}")]
    found += [fit.get(name, one) for name in pairs(setting)]
    if setting.work.phase != "prefill":
        repacked = setting.kernel == "repacked" and engine in ("llama_2024", "llama_cpp")
        return [*found, fit.index("other.decode_repacked") if repacked else one, one]
    kernel = setting.kernel or KERNELS.get(engine, "vector")
    matrix = kernel in ("repacked", "mnn", "xnnpack") and all("i8mm" in c.isa for c, _ in taken)
    return [
        *found,
        fit.index(f"prefill.{kernel}"),
        fit.index("prefill.i8mm") if matrix else one,
    ]


def pairs(setting: Setting) -> tuple[str, ...]:
    """Constants that this point shares with others of the same two families."""
    engine = roofline.family("engine", setting.engine) or "other"
    about = "numba_format" if engine == "numba" else "format"
    name = max(setting.work.weights, key=lambda form: setting.work.weights[form])
    form = roofline.family(about, name) or _OTHERWISE[about]
    has = isa(setting.device, setting.threads, engine)
    return (
        f"{roofline.PAIR}{engine}~{form}",
        f"{roofline.PAIR}{has}~{form}",
        f"{roofline.PAIR}{engine}~{setting.work.phase}",
        f"{roofline.PAIR}{has}~{setting.work.phase}",
    )
