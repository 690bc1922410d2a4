"""Evidence -> one reading: a value with its interval, its mark and its doubts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from harness import stats
from harness.records import Evidence, Failed, Measured, Row

RANDOM = "speed only: random weights"
UNSCORED = "not scored here"
Mark: TypeAlias = Literal["M", "P", "F"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A quantity as tables and decisions use it, in the unit of its evidence.

    low, high: 95 % interval of the median when measured, 90 % interval when projected
    source:    the instrument or the model
    """

    value: float
    low: float
    high: float
    mark: Literal["M", "P"]
    source: str
    flags: tuple[str, ...] = ()


def read(evidence: Evidence | None) -> Reading | None:
    """The reading; None when the evidence failed or is absent."""
    if evidence is None or isinstance(evidence, Failed):
        return None
    if isinstance(evidence, Measured):
        low, high, _ = stats.median_interval(evidence.samples)
        return Reading(
            value=stats.median(evidence.samples),
            low=low,
            high=high,
            mark="M",
            source=evidence.method,
            flags=tuple(dict.fromkeys((*evidence.flags, *stats.flags(evidence.samples)))),
        )
    return Reading(
        value=evidence.value,
        low=evidence.low,
        high=evidence.high,
        mark="P",
        source=evidence.model,
        flags=evidence.flags,
    )


def per(reading: Reading | None, units: int) -> Reading | None:
    """The reading divided among `units` tokens or steps."""
    if reading is None:
        return None
    value, low, high = (v / units for v in (reading.value, reading.low, reading.high))
    return replace(reading, value=value, low=low, high=high)


def mark(evidence: Evidence | None) -> Mark | Literal["-"]:
    """M measured, P projected, F failed, - never asked for."""
    if evidence is None:
        return "-"
    letters: dict[str, Mark] = {"measured": "M", "projected": "P", "failed": "F"}
    return letters[evidence.kind]


def reason(evidence: Evidence | None) -> str:
    """Why there is no value; "" when there is one."""
    return evidence.reason if isinstance(evidence, Failed) else ""


def flags(row: Row) -> tuple[str, ...]:
    """What makes the row's time and energy shaky, or extrapolates, each once."""
    readings = (read(row.seconds), read(row.joules))
    return tuple(dict.fromkeys(flag for reading in readings if reading for flag in reading.flags))


def notes(row: Row) -> list[str]:
    """Everything a reader should know before believing the row, each once."""
    found = [f"no time: {why}" for why in [reason(row.seconds)] if why]
    found += [f"no energy: {why}" for why in [reason(row.joules)] if why]
    found += [f"no memory: {why}" for why in [reason(row.resident)] if why]
    found += flags(row)
    found += (
        row.quality.flags
        if row.quality
        else (UNSCORED if row.recipe or not row.checkpoint_hash else RANDOM,)
    )
    found += ["made with --quick"] if row.quick else []
    return list(dict.fromkeys(found))
