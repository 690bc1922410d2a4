"""TOML file -> Device: a machine as facts, each with its kind and its source.

All numbers are SI without prefixes. One multiply-add is 2 operations.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import cast, get_args

from targets.facts import Category, Cluster, Device, Dram, Fact, Kind, ProfileError
from targets.use import all_facts, clock, last_cache, used

__all__ = [
    "Category",
    "Cluster",
    "Device",
    "Dram",
    "Fact",
    "Kind",
    "ProfileError",
    "all_facts",
    "clock",
    "last_cache",
    "limits",
    "load",
    "load_all",
    "names",
    "text",
    "used",
]

FOLDER = Path(__file__).parent / "devices"


def names(folder: Path | None = None) -> tuple[str, ...]:
    """All device names, sorted: the shipped ones and those in `folder`."""
    return tuple(sorted(_files(folder)))


def load(name: str, folder: Path | None = None) -> Device:
    """The device of this name; a file in `folder` takes the place of a shipped one.

    Raises ProfileError when there is none, or when its file is not as it must be.
    """
    files = _files(folder)
    if name not in files:
        close = ", ".join(difflib.get_close_matches(name, files, n=5, cutoff=0.4)) or "none"
        where = f"{folder} and {FOLDER}" if folder else str(FOLDER)
        raise ProfileError(
            f"unknown device {name!r}; close: {close} (of {len(files)} in {where}; `edgewise list "
            "devices` names them)"
        )
    return _read(files[name], files[name].stat().st_mtime_ns)


def load_all(folder: Path | None = None) -> tuple[Device, ...]:
    """Every device, by name. Raises ProfileError on the first file that is not as it must be."""
    return tuple(load(name, folder) for name in names(folder))


def limits(name: str) -> tuple[float, float]:
    """Between what a fact of this name must lie."""
    return (_LIMITS | _CLUSTER_LIMITS | {"caches": _CACHE_LIMITS})[name]


def text(device: Device) -> str:
    """The device as the TOML that `load` reads back to an equal Device."""
    lines = [f"{key} = {json.dumps(getattr(device, key))}" for key in _TEXTS]
    if device.dram:
        lines.append(f"dram = {json.dumps(device.dram)}")
    if device.recognise:
        lines.append(f"recognise = {json.dumps(list(device.recognise))}")
    facts = ((f.name, getattr(device, f.name)) for f in fields(device) if f.name in _LIMITS)
    lines += [f"{key} = {_fact_text(fact)}" for key, fact in facts if fact is not None]
    for table in ("read_bandwidth", "caches"):
        if entries := getattr(device, table):
            lines += ["", f"[{table}]"]
            lines += [f"{key} = {_fact_text(fact)}" for key, fact in entries.items()]
    for cluster in device.clusters:
        lines += ["", "[[clusters]]", f"core = {json.dumps(cluster.core)}"]
        lines += [f"isa = {json.dumps(list(cluster.isa))}"]
        known = {key: getattr(cluster, key) for key in _CLUSTER_LIMITS}
        lines += [f"{key} = {_fact_text(fact)}" for key, fact in known.items() if fact]
    return "\n".join(lines) + "\n"


# ---- reading, with every check at this edge ------------------------------------------------

_TEXTS = ("summary", "category", "soc")
_LIMITS: dict[str, tuple[float, float]] = {
    "year": (1990, 2100),
    "memory_bytes": (2**16, 2**43),
    "bandwidth": (1e6, 1e13),
    "idle_watts": (1e-3, 5e3),
    "load_watts": (1e-3, 5e3),
    "price_dollars": (0.1, 1e6),
    "sustained_share": (0.01, 1),
}
_CLUSTER_LIMITS: dict[str, tuple[float, float]] = {
    "count": (1, 512),
    "clock_hz": (1e7, 1e10),
    "float32_per_cycle": (0.01, 512),
    "int8_per_cycle": (0.01, 4096),
    "cycle_joules": (1e-13, 1e-6),
    "boost_hz": (1e7, 1e10),
}
_CLUSTER_OPTIONAL = {"cycle_joules", "boost_hz"}
_CACHE_LIMITS = (256.0, 2.0**33)
_CACHES = ("l1d", "l2", "l3", "system")
_WHOLE = ("year", "count", "memory_bytes")
_OPTIONAL = (
    "idle_watts", "load_watts", "price_dollars", "sustained_share", "dram", "read_bandwidth",
    "caches", "recognise",
)  # fmt: skip


def _files(folder: Path | None) -> dict[str, Path]:
    if folder is not None and not folder.is_dir():
        raise ProfileError(f"{folder} is no folder; give one that holds device TOML files")
    folders = [FOLDER] if folder is None else [FOLDER, folder]
    return {path.stem: path for each in folders for path in each.glob("*.toml")}


@cache
def _read(path: Path, _changed: int) -> Device:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not valid TOML: {error}") from None
    _same_keys(raw, {f.name for f in fields(Device)} - {"name"}, set(_OPTIONAL), str(path))
    for key in _TEXTS:
        _need(isinstance(raw[key], str) and raw[key].strip(), path, key, raw[key], "a text")
    categories = get_args(Category)
    _need(raw["category"] in categories, path, "category", raw["category"], " or ".join(categories))
    read = {
        _threads(key, path): _fact(value, f"read_bandwidth.{key}", path, _LIMITS["bandwidth"])
        for key, value in _table(raw, "read_bandwidth", path).items()
    }
    held = _table(raw, "caches", path)
    for key in held:
        _need(key in _CACHES, path, f"caches.{key}", key, f"one of {', '.join(_CACHES)}")
    phrases = raw.get("recognise", [])
    listed = isinstance(phrases, list) and all(isinstance(p, str) and len(p) > 3 for p in phrases)
    _need(listed, path, "recognise", phrases, 'a list as in ["Raspberry Pi 5*"]')
    dram = raw.get("dram", "")
    _need(dram in ("", *get_args(Dram)), path, "dram", dram, " or ".join(get_args(Dram)))
    facts = {
        key: _fact(raw[key], key, path, limits) for key, limits in _LIMITS.items() if key in raw
    }
    device = Device(
        name=path.stem,
        summary=raw["summary"],
        category=cast(Category, raw["category"]),
        soc=raw["soc"],
        year=facts["year"],
        clusters=_clusters(raw["clusters"], path),
        memory_bytes=facts["memory_bytes"],
        bandwidth=facts["bandwidth"],
        read_bandwidth=dict(sorted(read.items())),
        caches={k: _fact(v, f"caches.{k}", path, _CACHE_LIMITS) for k, v in held.items()},
        idle_watts=facts.get("idle_watts"),
        load_watts=facts.get("load_watts"),
        price_dollars=facts.get("price_dollars"),
        sustained_share=facts.get("sustained_share"),
        dram=cast(Dram, dram),
        recognise=tuple(cast(list[str], phrases)),
    )
    _hangs_together(device, path)
    return device


def _hangs_together(device: Device, path: Path) -> None:
    bus = device.bandwidth.value
    for threads, fact in device.read_bandwidth.items():
        where = f"read_bandwidth.{threads}"
        _need(fact.value <= 1.05 * bus, path, where, fact.value, f"at most the bus, {bus:g}")
        _need(threads <= 2 * device.cores, path, where, threads, f"at most {device.cores} cores")
    idle, load = device.idle_watts, device.load_watts
    if idle and load:
        _need(load.value >= idle.value, path, "load_watts", load.value, f">= idle, {idle.value:g}")


def _clusters(raw: object, path: Path) -> tuple[Cluster, ...]:
    right = "one [[clusters]] table per type of core"
    _need(isinstance(raw, list) and raw, path, "clusters", raw, right)
    found = []
    for i, entry in enumerate(cast(list[object], raw)):
        key = f"clusters[{i}]"
        _need(isinstance(entry, dict), path, key, entry, right)
        table = cast(dict[str, object], entry)
        _same_keys(table, {"core", "isa", *_CLUSTER_LIMITS}, _CLUSTER_OPTIONAL, f"{path}: {key}")
        core, isa = table["core"], table["isa"]
        _need(isinstance(core, str) and core, path, f"{key}.core", core, 'as in "cortex-a76"')
        right_isa = 'as in ["neon", "dotprod"]'
        texts = isinstance(isa, list) and all(isinstance(flag, str) for flag in isa)
        _need(texts, path, f"{key}.isa", isa, right_isa)
        facts = {
            name: _fact(table[name], f"{key}.{name}", path, limits)
            for name, limits in _CLUSTER_LIMITS.items()
            if name in table
        }
        boost = facts.get("boost_hz")
        slower = boost is not None and boost.value < facts["clock_hz"].value
        _need(not slower, path, f"{key}.boost_hz", boost and boost.value, "at least clock_hz")
        found.append(Cluster(core=str(core), isa=tuple(cast(list[str], isa)), **facts))
    return tuple(found)


def _fact(raw: object, key: str, path: Path, limits: tuple[float, float]) -> Fact:
    right = "{ value = NUMBER, kind = KIND, source = TEXT }"
    _need(isinstance(raw, dict), path, key, raw, right)
    table = cast(dict[str, object], raw)
    _same_keys(table, {"value", "kind", "source"}, set(), f"{path}: {key}")
    value, kind, source = table["value"], table["kind"], table["source"]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    low, high = limits
    fits = number and math.isfinite(cast(float, value)) and low <= cast(float, value) <= high
    _need(fits, path, f"{key}.value", value, f"a number from {low:g} to {high:g}")
    whole = key.rsplit(".", 1)[-1] not in _WHOLE or cast(float, value) == int(cast(float, value))
    _need(whole, path, f"{key}.value", value, "a whole number")
    _need(kind in get_args(Kind), path, f"{key}.kind", kind, " or ".join(get_args(Kind)))
    sourced = isinstance(source, str) and len(source.strip()) >= 4
    _need(sourced, path, f"{key}.source", source, "where the number was read: a URL, or the rule")
    return Fact(float(cast(float, value)), cast(Kind, kind), cast(str, source))


def _threads(key: str, path: Path) -> int:
    right = "a number of threads from 1 to 1024"
    _need(key.isdecimal() and 1 <= int(key) <= 1024, path, f"read_bandwidth.{key}", key, right)
    return int(key)


def _table(raw: Mapping[str, object], key: str, path: Path) -> dict[str, object]:
    table = raw.get(key, {})
    _need(isinstance(table, dict), path, key, table, f"a table [{key}]")
    return cast(dict[str, object], table)


def _same_keys(table: Mapping[str, object], known: set[str], optional: set[str], at: str) -> None:
    if missing := sorted(known - optional - set(table)):
        raise ProfileError(f"{at}: {missing[0]} is missing; needed: {', '.join(sorted(known))}")
    if unknown := sorted(set(table) - known):
        raise ProfileError(f"{at}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")


def _need(right: object, path: Path, key: str, found: object, wanted: str) -> None:
    if not right:
        raise ProfileError(f"{path}: {key} is {found!r}, must be {wanted}")


def _fact_text(fact: Fact) -> str:
    value = int(fact.value) if fact.value == int(fact.value) else fact.value
    return f'{{ value = {value!r}, kind = "{fact.kind}", source = {json.dumps(fact.source)} }}'
