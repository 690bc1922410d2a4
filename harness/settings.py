"""Settings (work + device + threads + engine) -> Points: what the roofline needs, as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from harness import ours, roofline
from harness.arrays import Floats, Ints, Loads, Machines, Points
from harness.roofline import Fit
from harness.supply import columns
from targets.profile import Cluster, Device, clock, used

SHARE = {  # by category: which machines reach what part of their bus; others go by their cores
    "phone": "phone",
    "sbc": "arm_board",
    "jetson": "arm_board",
}
AVX2_ONLY = ("lm_studio", "tmac", "bitnet", "rwkv")  # whose x86 code stops there
LOOKUPS = ("tmac",)  # look products up with instructions that every NEON has
OURS = "numba"  # the engine that ours.py models
CORES_OF_A_PORT = 6  # at most, in an Apple cluster
OTHERWISE = "q4"  # the family of a format of no family
KERNELS = {  # how an engine multiplies matrices in a prefill, unless a row says otherwise
    "llama_cpp": "repacked",
    "ik_llama": "tiled",
    "mnn": "mnn",
    "executorch": "xnnpack",
    "litert": "xnnpack",
    "cactus": "xnnpack",
}
T = TypeVar("T")


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
    counts: Mapping[str, float] = field(default_factory=dict)  # of our engine; see ours.counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One point to project."""

    work: Work
    device: Device
    threads: int
    engine: str
    kernel: str = ""  # how matrices are multiplied: "vector", "repacked", ...; "" is the usual way


def points(settings: Sequence[Setting], fit: Fit) -> Points:
    """The settings as arrays for `roofline.seconds`."""
    machines = list(dict.fromkeys((id(s.device), s.threads) for s in settings))
    by_id = {id(s.device): s.device for s in settings}
    position = {key: i for i, key in enumerate(machines)}
    return _assemble(
        [_machine(by_id[device], threads, fit) for device, threads in machines],
        [_load(s.work, s.engine, s.kernel, fit) for s in settings],
        np.array([position[id(s.device), s.threads] for s in settings], np.int64),
        np.arange(len(settings)),
        fit,
    )


def grid(
    machines: Sequence[tuple[Device, int]],
    works: Sequence[Work],
    engine: str,
    fit: Fit,
) -> Points:
    """Every work on every machine (a device with so many threads), machines slowest: (m*w,)."""
    return _assemble(
        [_machine(device, threads, fit) for device, threads in machines],
        [_load(work, engine, "", fit) for work in works],
        np.repeat(np.arange(len(machines)), len(works)),
        np.tile(np.arange(len(works)), len(machines)),
        fit,
    )


def isa(device: Device, threads: int, engine: str = "numba") -> str:
    """What all the cores that so many threads use have, as far as the engine's code uses it.

    A key of the constants `isa.*`.
    """
    return _isa(_flags(device, threads), engine)


def pairs(setting: Setting) -> tuple[str, ...]:
    """Constants that this point shares with others of the same two families."""
    engine = roofline.family("engine", setting.engine) or "other"
    if engine == OURS:
        return ()
    kind = _Kind(engine, _main(setting.work), setting.work.phase == "prefill", "")
    return _pairs(kind, isa(setting.device, setting.threads, engine))


# ---- machines ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """A device with so many threads: one entry of the arrays in Points."""

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


def _machine(device: Device, threads: int, fit: Fit) -> _Machine:
    families = [fit.names[i].partition(".")[2] for i in columns(fit.names, "core_speed")]
    count, hertz = np.zeros(len(families)), np.zeros(len(families))
    slowest = np.full(len(families), np.inf)
    taken = used(device, threads)
    column = [families.index(_family(cluster)) for cluster, _ in taken]
    for (cluster, n), i in zip(taken, column, strict=True):
        count[i] += n
        hertz[i] += n * clock(cluster, n)
        slowest[i] = min(slowest[i], clock(cluster, n))
    return _Machine(
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
        cache=max((f.value for level, f in device.caches.items() if level != "l1d"), default=0.0),
        int8_peak=sum(n * clock(c, n) * c.int8_per_cycle.value for c, n in taken),
        float_peak=sum(n * clock(c, n) * c.float32_per_cycle.value for c, n in taken),
        flags=_flags(device, threads),
    )


def _flags(device: Device, threads: int) -> frozenset[str]:
    return frozenset.intersection(*(frozenset(c.isa) for c, _ in used(device, threads)))


def _isa(flags: frozenset[str], engine: str) -> str:
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


# ---- loads ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """What of a load decides which constants multiply its cycles."""

    engine: str
    form: str  # family of the format with most work
    prefill: bool
    kernel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """A work on an engine: one entry of the arrays in Points."""

    weights: Floats
    others: float
    other_cycles: int
    streamed: float
    resident: float
    prompt: float
    layers: float
    ours: bool
    counts: Floats
    kind: _Kind


def _load(work: Work, engine: str, kernel: str, fit: Fit) -> _Load:
    engine = roofline.family("engine", engine) or "other"
    names = [fit.names[i] for i in columns(fit.names, "format")]
    weights = np.zeros(len(names))
    for name, count in work.weights.items():
        weights[names.index(f"format.{roofline.family('format', name) or OTHERWISE}")] += count
    return _Load(
        weights=weights,
        others=work.others,
        other_cycles=fit.index(f"other.attention_{work.phase}"),
        streamed=work.streamed_bytes,
        resident=work.resident_bytes,
        prompt=work.tokens if work.phase == "prefill" else 0,
        layers=work.layers,
        ours=engine == OURS,
        counts=np.array([work.counts.get(name, 0.0) for name in ours.COUNTS]),
        kind=_Kind(engine, _main(work), work.phase == "prefill", kernel),
    )


def _main(work: Work) -> str:
    """The family of the format that most of the work is in."""
    name = max(work.weights, key=lambda form: work.weights[form])
    return roofline.family("format", name) or OTHERWISE


def _factors(kind: _Kind, flags: frozenset[str], fit: Fit) -> list[int]:
    """Constants that multiply the cycles: isa, engine, pairs, and the kernel and i8mm."""
    one = fit.index("engine.numba")
    has = _isa(flags, kind.engine)
    found = [fit.index(f"isa.{has}"), fit.index(f"engine.{kind.engine}")]
    found += [fit.get(name, one) for name in _pairs(kind, has)]
    if not kind.prefill:
        repacked = kind.kernel == "repacked" and kind.engine in ("llama_2024", "llama_cpp")
        return [*found, fit.index("other.decode_repacked") if repacked else one, one]
    kernel = kind.kernel or KERNELS.get(kind.engine, "vector")
    matrix = kernel in ("repacked", "mnn", "xnnpack") and "i8mm" in flags
    return [*found, fit.index(f"prefill.{kernel}"), fit.index("prefill.i8mm") if matrix else one]


def _pairs(kind: _Kind, has: str) -> tuple[str, ...]:
    phase = "prefill" if kind.prefill else "decode"
    return (
        f"{roofline.PAIR}{kind.engine}~{kind.form}",
        f"{roofline.PAIR}{has}~{kind.form}",
        f"{roofline.PAIR}{kind.engine}~{phase}",
        f"{roofline.PAIR}{has}~{phase}",
    )


# ---- together ------------------------------------------------------------------------------


def _assemble(
    machines: Sequence[_Machine], loads: Sequence[_Load], which: Ints, what: Ints, fit: Fit
) -> Points:
    """Points of loads[what] on machines[which]; what both decide comes from a small table."""
    flags, of_machine = _distinct(m.flags for m in machines)
    kinds, of_load = _distinct(load.kind for load in loads)

    def machine(name: str) -> Floats:
        return np.array([getattr(m, name) for m in machines], float)

    def load(name: str) -> Floats:
        return np.array([getattr(load, name) for load in loads], float)

    return Points(
        machines=Machines(
            cores=machine("cores"),
            hertz=machine("hertz"),
            slowest=machine("slowest"),
            first=np.array([m.first for m in machines], np.int64),
            threads=machine("threads"),
            bus=machine("bus"),
            bus_share=np.array([m.bus_share for m in machines], np.int64),
            fabric=machine("fabric"),
            read_one=machine("read_one"),
            read_all=machine("read_all"),
            near=machine("near"),
            cache=machine("cache"),
            int8_peak=machine("int8_peak"),
            float_peak=machine("float_peak"),
        ),
        loads=Loads(
            weights=load("weights"),
            others=load("others"),
            other_cycles=np.array([x.other_cycles for x in loads], np.int64),
            streamed=load("streamed"),
            resident=load("resident"),
            prompt=load("prompt"),
            layers=load("layers"),
            ours=np.array([x.ours for x in loads], bool),
            counts=np.array([x.counts for x in loads]),
        ),
        which=which,
        what=what,
        table=np.array([[_factors(kind, each, fit) for kind in kinds] for each in flags], np.int64),
        kind_of_machine=of_machine,
        kind_of_load=of_load,
    )


def _distinct(items: Iterable[T]) -> tuple[list[T], Ints]:
    """The items without repetition, and for each which of those it is."""
    position: dict[T, int] = {}
    which = [position.setdefault(item, len(position)) for item in items]
    return list(position), np.array(which, np.int64)
