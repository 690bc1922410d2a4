"""Arrays of facts and counts + fitted constants -> seconds of a step, any number of points at once.

    step = (memory^p + compute^p)^(1/p) + attention + overhead
    memory  = streamed bytes / bandwidth of the cores used, of the bus, or of the last cache
    compute = sum of weights x cycles(format) x isa x engine / rate of the cores used,
              but no less than the cores' peak allows

The form and the centres of its constants follow a study that left whole devices out of
calibration/published.csv; calibrate.py fits them. All in SI; n points, k constants.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadInput
from harness.records import Miss

FOLDER = Path(__file__).parent / "calibration"
FIT = FOLDER / "fit.json"
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

TRUST = 0.6  # weight of a measured bandwidth against the modelled one, on a logarithm
STATIC = 0.75  # share of the work that is divided evenly, so that the slowest core sets the pace
PASS = 512  # tokens of a prompt that share one reading of the weights (llama.cpp's ubatch)
PAIR = "pair."  # constants of what two families do together beyond what each does; 1 if unseen
CACHED = (0.6, 1.4)  # resident bytes over cache bytes: below, all hits; above, none


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Constants of the model, by name such as "format.q4", and what is known of its errors.

    intervals: per phase, what the width of an interval follows from; see intervals.py
    provenance: what it was fitted on
    misses: by name of a device, what was measured on it after the fit; see correct.py
    """

    model: str
    names: tuple[str, ...]
    values: Floats  # (k,)
    intervals: Mapping[str, Mapping[str, float]]
    provenance: Mapping[str, object]
    misses: Mapping[str, tuple[Miss, ...]] = field(default_factory=dict)

    def index(self, name: str) -> int:
        return self._positions[name]

    def get(self, name: str, otherwise: int) -> int:
        return self._positions.get(name, otherwise)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What the model needs to know of m machines, each a device with so many threads.

    A two-dimensional array has one column per family of cores, in the order of `Fit.names`.
    """

    cores: Floats  # (m, families) in use
    hertz: Floats  # (m, families) sum of their clocks
    slowest: Floats  # (m, families) lowest of their clocks, inf where none is used
    first: Ints  # (m,) column of the fastest core in use
    threads: Floats  # (m,)
    bus: Floats  # (m,) theoretical bandwidth
    bus_share: Ints  # (m,) index of a constant
    fabric: Floats  # (m,) clusters that each reach memory through a port of their own; 0: no limit
    read_one: Floats  # (m,) measured with one thread, nan where it is not
    read_all: Floats  # (m,) measured with as many threads as here, nan where it is not
    cache: Floats  # (m,) last level
    int8_peak: Floats  # (m,) operations per second that matrix kernels may reach
    float_peak: Floats  # (m,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What the model needs to know of w loads, each a step of a model on an engine."""

    weights: Floats  # (w, formats) multiply-adds of weights in a step, in the order of `formats`
    int8_work: Floats  # (w,) multiply-adds of weights that the cores' peaks limit: as bytes
    float_work: Floats  # (w,) and as float32
    others: Floats  # (w,) multiply-adds without weights in a step
    other_cycles: Ints  # (w,) index of a constant
    streamed: Floats  # (w,) bytes of weights and state that a step reads
    resident: Floats  # (w,) bytes that a step touches again
    prompt: Floats  # (w,) tokens of a prefill, 0 for a decode
    layers: Floats  # (w,)
    ours: NDArray[np.bool_]  # (w,) our engine, whose layers cost cycles, not system calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """n pairs of a machine and a load.

    which, what: (n,) the machine and the load of each point
    table: (a,b,any) indices of constants whose product multiplies the cycles of the weights, by
    kind of machine (a) and of load (b); kind_of_machine (m,), kind_of_load (w,)
    """

    machines: Machines
    loads: Loads
    which: Ints
    what: Ints
    table: Ints
    kind_of_machine: Ints
    kind_of_load: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Of one step, per point: the parts, and the whole."""

    memory: Floats
    compute: Floats
    overhead: Floats
    total: Floats


def seconds(points: Points, names: tuple[str, ...], values: Floats) -> Seconds:
    """Time of one step of every point: of one token in a decode, of the prompt in a prefill.

    values (k,), or (m,k) for m sets of constants at once, which gives times (m,n)
    """
    at = {name: values[..., i, None] for i, name in enumerate(names)}
    machines, loads = points.machines, points.loads
    which, what = points.which, points.what
    # of each machine
    speed = values[..., columns(names, "core_speed")]
    speeds = speed @ machines.hertz.T
    count = machines.cores.sum(axis=1)
    pace = np.min(machines.slowest * speed[..., None, :], axis=-1) * count
    rate = ((1 - STATIC) * speeds + STATIC * pace)[..., which]
    from_memory = (1 / _bandwidth(machines, names, values))[..., which]
    from_cache = (1 / (at["other.cache_bytes_per_cycle"] * speeds))[..., which]
    # of each load
    cycles = values[..., formats(names)] @ loads.weights.T
    passes = np.maximum(1, np.ceil(loads.prompt / PASS))
    prefill = loads.prompt > 0
    fixed = at["other.prefill_fixed_tokens"] / np.maximum(loads.prompt, 1)
    cycles = (cycles * np.where(prefill, 1 + fixed, 1))[..., what]
    others = (loads.others * values[..., loads.other_cycles])[..., what]
    # of each point
    factors = values[..., points.table].prod(axis=-1)
    factors = factors[..., points.kind_of_machine[which], points.kind_of_load[what]]
    compute = cycles * factors / rate
    if loads.ours.any():
        floor = loads.float_work[what] / machines.float_peak[which]
        floor += loads.int8_work[what] / machines.int8_peak[which]
        compute = np.maximum(compute, 2 * floor)
    low, high = CACHED
    cache = np.maximum(machines.cache, 1)[which]
    hits = np.clip((high - loads.resident[what] / cache) / (high - low), 0, 1)
    streamed = (loads.streamed * passes)[what]
    memory = streamed * (from_memory + hits * (from_cache - from_memory))
    attention = others / rate
    theirs = (at["other.layer_seconds"] * (0.5 + machines.threads / 8))[..., which]
    if loads.ours.any():
        own = (at["other.numba_layer_cycles"] * count / speeds)[..., which]
        theirs = np.where(loads.ours[what], own, theirs)
    overhead = (loads.layers * passes)[what] * theirs
    join = at["other.join"]
    body = (memory**join + compute**join) ** (1 / join)
    return Seconds(
        memory=memory,
        compute=compute + attention,
        overhead=overhead,
        total=body + attention + overhead,
    )


def _bandwidth(machines: Machines, names: tuple[str, ...], values: Floats) -> Floats:
    """Bytes per second that the cores of each machine read together."""
    one = values[..., columns(names, "core_bandwidth")]
    modelled_one = one[..., machines.first]
    known = np.where(np.isnan(machines.read_one), modelled_one, machines.read_one)
    cores = (one @ machines.cores.T) * (known / modelled_one) ** TRUST
    limits = cores**-3 + (values[..., machines.bus_share] * machines.bus) ** -3
    port = values[..., names.index("other.cluster_bandwidth"), None]
    ports = np.maximum(machines.fabric, 1) * port
    modelled = (limits + np.where(machines.fabric > 0, ports**-3, 0.0)) ** (-1 / 3)
    measured = np.where(np.isnan(machines.read_all), modelled, machines.read_all)
    bandwidth: Floats = modelled * (measured / modelled) ** TRUST
    return bandwidth


@cache
def columns(names: tuple[str, ...], about: str) -> Ints:
    """Positions of the constants `about.*`, in order."""
    return np.array([i for i, name in enumerate(names) if name.startswith(about + ".")], np.int64)


@cache
def formats(names: tuple[str, ...]) -> Ints:
    """Positions of the cycles per weight: of other engines' formats, then of our own."""
    return np.concatenate([columns(names, "format"), columns(names, "numba_format")])


@cache
def family(about: str, name: str) -> str | None:
    """The family of a core, engine or format by its name; None when no pattern matches."""
    for found, patterns in _families()[about].items():
        if any(fnmatchcase(name.lower(), pattern) for pattern in patterns):
            return found
    return None


def priors() -> tuple[tuple[str, ...], Floats, Floats]:
    """Names, centres and spreads (of the logarithm; 0 is fixed) of all constants."""
    table = _toml("priors.toml")
    entries = {f"{about}.{k}": v for about, group in table.items() for k, v in group.items()}
    values, spreads = ([v[key] for v in entries.values()] for key in ("value", "spread"))
    return tuple(entries), np.array(values, float), np.array(spreads, float)


@cache
def load(path: Path = FIT) -> Fit:
    """The stored fit; a constant it does not know keeps its prior. Raises BadInput."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        names, centres, _ = priors()
        constants = cast(dict[str, float], raw["constants"])
        pairs = tuple(name for name in constants if name.startswith(PAIR))
        names, centres = (*names, *pairs), np.append(centres, np.ones(len(pairs)))
        return Fit(
            model=raw["model"],
            names=names,
            values=np.array([constants.get(n, c) for n, c in zip(names, centres, strict=True)]),
            intervals={
                phase: {name: float(x) for name, x in found.items()}
                for phase, found in raw["intervals"].items()
            },
            provenance=raw["provenance"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no fit ({error!r}); `edgewise calibrate` writes one") from None


def save(fit: Fit, path: Path) -> None:
    """Write the fit so that `load` finds it again."""
    raw = {
        "model": fit.model,
        "intervals": fit.intervals,
        "provenance": fit.provenance,
        "constants": {
            n: float(f"{v:.6g}") for n, v in zip(fit.names, fit.values.tolist(), strict=True)
        },
    }
    path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


@cache
def _families() -> dict[str, dict[str, list[str]]]:
    return _toml("families.toml")


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))
