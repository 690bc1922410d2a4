"""Settings (work + device + threads + engine) -> Points: what the roofline needs, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from harness import hardware, ours, roofline
from harness.arrays import DTYPES, Floats, Ints, Loads, Machines, Points
from harness.hardware import Hardware
from harness.roofline import Fit
from harness.supply import columns
from targets.profile import Device

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
R = TypeVar("R", Machines, Loads)


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
        [hardware.of(by_id[device], threads, fit) for device, threads in machines],
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
        [hardware.of(device, threads, fit) for device, threads in machines],
        [_load(work, engine, "", fit) for work in works],
        np.repeat(np.arange(len(machines)), len(works)),
        np.tile(np.arange(len(works)), len(machines)),
        fit,
    )


def pairs(setting: Setting) -> tuple[str, ...]:
    """Constants that this point shares with others of the same two families."""
    engine = roofline.family("engine", setting.engine) or "other"
    if engine == ours.ENGINE:
        return ()
    kind = _Kind(engine, _main(setting.work), setting.work.phase == "prefill", "")
    return _pairs(kind, hardware.isa(setting.device, setting.threads, engine))


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
        ours=engine == ours.ENGINE,
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
    has = hardware.usable(flags, kind.engine)
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
    machines: Sequence[Hardware], loads: Sequence[_Load], which: Ints, what: Ints, fit: Fit
) -> Points:
    """Points of loads[what] on machines[which]; what both decide comes from a small table."""
    flags, of_machine = _distinct(m.flags for m in machines)
    kinds, of_load = _distinct(load.kind for load in loads)

    return Points(
        machines=_stacked(Machines, machines),
        loads=_stacked(Loads, loads),
        which=which,
        what=what,
        table=np.array([[_factors(kind, each, fit) for kind in kinds] for each in flags], np.int64),
        kind_of_machine=of_machine,
        kind_of_load=of_load,
    )


def _stacked(kind: type[R], entries: Sequence[Hardware] | Sequence[_Load]) -> R:
    """Entries -> the record whose arrays hold their fields of the same names."""
    arrays: dict[str, Any] = {
        each.name: np.array([getattr(e, each.name) for e in entries], DTYPES[str(each.type)])
        for each in fields(kind)
    }
    return kind(**arrays)


def _distinct(items: Iterable[T]) -> tuple[list[T], Ints]:
    """The items without repetition, and for each which of those it is."""
    position: dict[T, int] = {}
    which = [position.setdefault(item, len(position)) for item in items]
    return list(position), np.array(which, np.int64)
