"""Arrays of facts and counts + fitted constants -> seconds of a step, any number of points at once.

    step = (memory^p + compute^p)^(1/p) + attention + overhead
    memory  = streamed bytes / bandwidth of the cores used, of the bus, or of the last cache
    compute = sum of weights x cycles(format) x isa x engine / rate of the cores used, which grows
              more slowly than their count

That is for other engines; ours, of which more is known, has a form of its own in ours.py. This
one and the centres of its constants follow a study that left whole devices out of
calibration/published.csv; calibrate.py fits them. All in SI; n points, k constants.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from harness import ours
from harness.arrays import Floats, Points, Seconds
from harness.errors import BadInput
from harness.records import Miss
from harness.supply import bandwidth, cached, columns, pace

FOLDER = Path(__file__).parent / "calibration"
FIT = FOLDER / "fit.json"
PASS = 512  # tokens of a prompt that share one reading of the weights (llama.cpp's ubatch)
BOUNDS = ("memory", "compute", "overhead")  # parts of a step, as in Seconds
PAIR = "pair."  # constants of what two families do together beyond what each does; 1 if unseen


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


def seconds(points: Points, names: tuple[str, ...], values: Floats) -> Seconds:
    """Time of one step of every point: of one token in a decode, of the prompt in a prefill.

    values (k,), or (m,k) for m sets of constants at once, which gives times (m,n)
    """
    mine = points.loads.ours[points.what]
    found = [
        (
            mask,
            model(replace(points, which=points.which[mask], what=points.what[mask]), names, values),
        )
        for mask, model in ((~mine, _theirs), (mine, ours.seconds))
        if mask.any()
    ]
    if len(found) == 1:
        return found[0][1]
    whole = {}
    for name in (each.name for each in fields(Seconds)):
        whole[name] = np.empty((*values.shape[:-1], len(mine)))
        for mask, part in found:
            whole[name][..., mask] = getattr(part, name)
    return Seconds(**whole)


def bounds(parts: Seconds) -> list[str]:
    """What takes longest at each point: memory, compute or overhead."""
    times = np.stack([getattr(parts, name) for name in BOUNDS])
    return [BOUNDS[i] for i in times.argmax(axis=0).tolist()]


def _theirs(points: Points, names: tuple[str, ...], values: Floats) -> Seconds:
    """Of other engines."""
    at = {name: values[..., i, None] for i, name in enumerate(names)}
    machines, loads = points.machines, points.loads
    which, what = points.which, points.what
    # of each machine
    speeds, rates = pace(machines, names, values)
    count = machines.cores.sum(axis=1)
    rate = (rates * count ** -at["other.sharing"])[..., which]
    from_memory = (1 / bandwidth(machines, names, values))[..., which]
    from_cache = (1 / (at["other.cache_bytes_per_cycle"] * speeds))[..., which]
    # of each load
    cycles = values[..., columns(names, "format")] @ loads.weights.T
    passes = np.maximum(1, np.ceil(loads.prompt / PASS))
    fixed = at["other.prefill_fixed_tokens"] / np.maximum(loads.prompt, 1)
    cycles = (cycles * np.where(loads.prompt > 0, 1 + fixed, 1))[..., what]
    attention = (loads.others * values[..., loads.other_cycles])[..., what] / rate
    # of each point
    factors = values[..., points.table].prod(axis=-1)
    factors = factors[..., points.kind_of_machine[which], points.kind_of_load[what]]
    compute = cycles * factors / rate
    hits = cached(loads.resident[what], machines.cache[which])
    streamed = (loads.streamed * passes)[what]
    memory = streamed * (from_memory + hits * (from_cache - from_memory))
    wait = (at["other.layer_seconds"] * (0.5 + machines.threads / 8))[..., which]
    overhead = (loads.layers * passes)[what] * wait
    join = at["other.join"]
    body = (memory**join + compute**join) ** (1 / join)
    return Seconds(
        memory=memory,
        compute=compute + attention,
        overhead=overhead,
        total=body + attention + overhead,
    )


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


def as_json(fit: Fit) -> str:
    """The fit as `load` reads it."""
    raw = {
        "model": fit.model,
        "intervals": fit.intervals,
        "provenance": fit.provenance,
        "constants": {
            n: float(f"{v:.6g}") for n, v in zip(fit.names, fit.values.tolist(), strict=True)
        },
    }
    return json.dumps(raw, indent=1) + "\n"


@cache
def _families() -> dict[str, dict[str, list[str]]]:
    return _toml("families.toml")


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))
