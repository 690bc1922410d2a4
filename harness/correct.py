"""A few measurements of a device -> its correction: a shift of what is projected, less doubt.

A correction holds measurements, not facts: a new fit makes of them what it can, and a device
whose facts are changed keeps by what factor it was off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from harness import intervals, likeness, reported, roofline
from harness.doubts import doubts
from harness.errors import BadInput
from harness.records import Miss
from harness.roofline import Fit
from harness.settings import Setting, Work, points
from targets import profile
from targets.profile import Device, ProfileError

SUFFIX = ".measured.json"
FURTHEST = 1.4  # what one measurement may say of a device [logarithm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One measurement: `seconds` of a step of this work."""

    work: Work
    threads: int
    engine: str
    kernel: str
    seconds: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What was measured on a device of this name, apart from its facts."""

    device: str
    seen: tuple[Seen, ...]


def informed(fit: Fit, folder: Path | None) -> Fit:
    """The fit with what was measured on devices of a folder, so that it projects them closer.

    Raises BadInput on a broken correction, and on one of an unknown device.
    """
    known = {}
    for name, one in load_all(folder).items():
        try:
            known[name] = misses(one, profile.load(name, folder), fit)
        except ProfileError as error:
            raise BadInput(f"{file_of(name, folder)} cannot be used: {error}") from None
    return replace(fit, misses=known)


def corrected(
    seconds: float, half: float, setting: Setting, fit: Fit
) -> tuple[float, float, tuple[str, ...]]:
    """Seconds, and the half-width of their interval, by what was measured on the device of this
    name, with a note that says so; as they are where nothing was."""
    known = fit.misses.get(setting.device.name)
    if not known:
        return seconds, half, ()
    shift, kept = likeness.adjust(known, setting, fit)
    many = f"{len(known)} measurements" if len(known) > 1 else "one measurement"
    return seconds * math.exp(shift), half * kept, (f"corrected by {many} of this device",)


def misses(correction: Correction, device: Device, fit: Fit) -> tuple[Miss, ...]:
    """By how much this fit, knowing the device's facts alone, misses what was measured."""
    seen = [_setting(s, device) for s in correction.seen]
    total = roofline.seconds(points(seen, fit), fit.names, fit.values).total
    errors = np.log([s.seconds for s in correction.seen]) - np.log(total)
    kept = np.clip(errors, -FURTHEST, FURTHEST).tolist()
    return tuple(likeness.miss(s, error) for s, error in zip(seen, kept, strict=True))


def of_lines(lines: Sequence[Mapping[str, str]], device: Device) -> Correction:
    """Of rows with the columns of published.csv, measured on this device. Raises BadInput."""
    seen = []
    for number, row in enumerate(lines, start=1):
        try:
            rate = float(row.get("tokens_per_s") or "nan")
        except ValueError:
            rate = math.nan
        if not (math.isfinite(rate) and rate > 0):
            raise BadInput(f"row {number}: tokens_per_s is {row.get('tokens_per_s')!r}")
        line = reported.read(row, device)
        source = " ".join(row[key] for key in ("model", "weights_format", "context_or_n"))
        seen.append((line.setting, line.tokens / rate, source))
    return of_settings(seen, device.name)


def of_settings(rows: Sequence[tuple[Setting, float, str]], device: str) -> Correction:
    """Of settings, the seconds of a step, and where each is from."""
    seen = tuple(
        Seen(
            work=setting.work,
            threads=setting.threads,
            engine=setting.engine,
            kernel=setting.kernel,
            seconds=seconds,
            source=source,
        )
        for setting, seconds, source in rows
    )
    return Correction(device=device, seen=seen)


def told(correction: Correction, device: Device, fit: Fit) -> list[str]:
    """Of each measurement: measured, projected and corrected tokens/s, and how the factor of its
    interval shrinks."""
    known, lines = misses(correction, device, fit), []
    for seen, one in zip(correction.seen, known, strict=True):
        setting = _setting(seen, device)
        shift, kept = likeness.adjust(known, setting, fit)
        half = intervals.half(fit.intervals[seen.work.phase], doubts(setting, fit))
        measured = seen.work.tokens / seen.seconds
        projected = measured * math.exp(one.error)
        lines.append(
            f"{seen.source:44} {measured:10.4g} {projected:10.4g} "
            f"{projected * math.exp(-shift):10.4g}  "
            f"x{math.exp(half):.2f} -> x{math.exp(half * kept):.2f}"
        )
    return lines


def joined(before: Correction, now: Correction) -> Correction:
    """What was measured before and now; a run that was measured again counts as it is now."""

    def run(seen: Seen) -> Seen:
        return replace(seen, seconds=1.0, source="")

    again = [run(seen) for seen in now.seen]
    kept = (seen for seen in before.seen if run(seen) not in again)
    return replace(now, seen=(*kept, *now.seen))


def file_of(device: str, folder: Path | None) -> Path:
    """Where a correction lies: beside the profiles of a folder."""
    return (folder or Path()) / f"{device}{SUFFIX}"


def as_json(correction: Correction) -> str:
    return json.dumps(asdict(correction), indent=1) + "\n"


def load_all(folder: Path | None) -> dict[str, Correction]:
    """The corrections in a folder, by device. Raises BadInput on a broken one."""
    paths = sorted(folder.glob(f"*{SUFFIX}")) if folder else []
    return {found.device: found for found in map(load, paths)}


def load(path: Path) -> Correction:
    """One correction. Raises BadInput."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        seen = tuple(Seen(**{**each, "work": Work(**each["work"])}) for each in raw["seen"])
        if not seen or not all(s.seconds > 0 and math.isfinite(s.seconds) for s in seen):
            raise ValueError("no measurement above 0 s")
        return Correction(device=str(raw["device"]), seen=seen)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is no correction ({error!r}); move it away, and `edgewise calibrate --device "
            "NAME --from FILE` writes another"
        ) from None


def _setting(seen: Seen, device: Device) -> Setting:
    return Setting(
        work=seen.work, device=device, threads=seen.threads, engine=seen.engine, kernel=seen.kernel
    )
