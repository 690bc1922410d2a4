"""A few measurements of a device -> its correction: a shift of what is projected, less doubt.

Logarithms of published over projected seconds of one device are taken for a Gaussian process:
they share something of the device, of the phase, of the engine, and of engine and format, the
more the closer their thread counts. The variances are fitted to rows of devices left out.
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

from harness import intervals, reported, roofline
from harness.arrays import Floats
from harness.doubts import doubts
from harness.errors import BadInput
from harness.records import Miss
from harness.roofline import Fit
from harness.settings import Setting, Work, points
from targets import profile
from targets.profile import Device

SUFFIX = ".measured.json"
SHARED = ("device", "phase", "engine", "format", "threads")  # what two errors may have in common
NOISES = ("noise", "prefill_noise")  # what they have not; prefills have both
PARTS = (*SHARED, *NOISES)
START = 0.02  # variance of each part before it is fitted, and where a weak prior holds it
LIMIT = (
    0.4  # residuals beyond, twice the noise of a fit, say no more of what rows share [logarithm]
)
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

    Raises BadInput on a broken correction, ProfileError on one of an unknown device.
    """
    found = load_all(folder)
    return replace(
        fit,
        misses={n: misses(one, profile.load(n, folder), fit) for n, one in found.items()},
    )


def corrected(
    seconds: float, half: float, setting: Setting, fit: Fit
) -> tuple[float, float, tuple[str, ...]]:
    """Seconds, and the half-width of their interval, by what was measured on the device of this
    name, with a note that says so; as they are where nothing was."""
    known = fit.misses.get(setting.device.name)
    if not known:
        return seconds, half, ()
    shift, kept = adjust(known, setting, fit)
    many = f"{len(known)} measurements" if len(known) > 1 else "one measurement"
    return seconds * math.exp(shift), half * kept, (f"corrected by {many} of this device",)


def adjust(known: Sequence[Miss], setting: Setting, fit: Fit) -> tuple[float, float]:
    """What to add to the logarithm of seconds here, and the factor on the interval's width."""
    here = [miss(setting, 0.0)]
    parts = variances(fit)
    among = _shared(known, known, parts) + np.diag(_noise(known, parts))
    across = _shared(here, known, parts)[0]
    errors = np.array([each.error for each in known])
    solved = np.linalg.solve(among, np.stack([errors, across], axis=1))
    noise = float(_noise(here, parts)[0])
    before = _shared(here, here, parts)[0, 0] + noise
    left = max(before - float(across @ solved[:, 1]), noise)
    return float(across @ solved[:, 0]), math.sqrt(left / before)


def misses(correction: Correction, device: Device, fit: Fit) -> tuple[Miss, ...]:
    """By how much this fit, knowing the device's facts alone, misses what was measured."""
    seen = [_setting(s, device) for s in correction.seen]
    total = roofline.seconds(points(seen, fit), fit.names, fit.values).total
    errors = np.log([s.seconds for s in correction.seen]) - np.log(total)
    kept = np.clip(errors, -FURTHEST, FURTHEST).tolist()
    return tuple(miss(s, error) for s, error in zip(seen, kept, strict=True))


def miss(setting: Setting, error: float) -> Miss:
    """An error at this setting."""
    engine = roofline.family("engine", setting.engine) or "other"
    name = max(setting.work.weights, key=lambda form: setting.work.weights[form])
    about = "numba_format" if engine == "numba" else "format"
    form = f"{engine} {roofline.family(about, name)} {setting.kernel}"
    return Miss(
        phase=setting.work.phase, engine=engine, form=form, threads=setting.threads, error=error
    )


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
        shift, kept = adjust(known, setting, fit)
        half = intervals.half(fit.intervals[seen.work.phase], doubts(setting, fit))
        measured = seen.work.tokens / seen.seconds
        projected = measured * math.exp(one.error)
        lines.append(
            f"{seen.source:44} {measured:10.4g} {projected:10.4g} "
            f"{projected * math.exp(-shift):10.4g}  "
            f"x{math.exp(half):.2f} -> x{math.exp(half * kept):.2f}"
        )
    return lines


def variances(fit: Fit) -> Mapping[str, float]:
    """The parts' variances that `fit_variances` stored with the fit."""
    stored = fit.provenance.get("variances")
    if not isinstance(stored, dict):
        return dict.fromkeys(PARTS, START)
    return {part: float(stored.get(part, 0.0)) for part in PARTS}


def fit_variances(rows: Sequence[tuple[Setting, float]]) -> Mapping[str, float]:
    """By maximum likelihood over left-out rows: settings, and logarithm of published over
    projected seconds."""
    from scipy.optimize import minimize  # noqa: PLC0415  (0.3 s that reading a fit spares)

    devices: dict[str, list[Miss]] = {}
    for setting, residual in rows:
        clipped = min(max(residual, -LIMIT), LIMIT)
        devices.setdefault(setting.device.name, []).append(miss(setting, clipped))
    known = [
        (found, _alike(found, found), np.array([each.error for each in found]))
        for found in devices.values()
    ]

    def loss(x: Floats) -> float:
        parts = dict(zip(PARTS, np.exp(x).tolist(), strict=True))
        total = 0.025 * float(((x - math.log(START)) ** 2).sum())
        for where, alike, values in known:
            shared = np.tensordot([parts[part] for part in SHARED], alike, axes=1)
            matrix = shared + np.diag(_noise(where, parts))
            root = np.linalg.cholesky(matrix)
            white = np.linalg.solve(root, values)
            total += 0.5 * float(white @ white) + float(np.log(np.diag(root)).sum())
        return total

    start = np.full(len(PARTS), math.log(START))
    found = minimize(loss, start, method="L-BFGS-B", options={"maxiter": 40}).x
    return {part: round(float(v), 5) for part, v in zip(PARTS, np.exp(found), strict=True)}


def save(correction: Correction, folder: Path) -> Path:
    """Beside the profiles of a folder, as NAME.measured.json."""
    path = folder / f"{correction.device}{SUFFIX}"
    path.write_text(json.dumps(asdict(correction), indent=1) + "\n", encoding="utf-8")
    return path


def load_all(folder: Path | None) -> dict[str, Correction]:
    """The corrections in a folder, by device. Raises BadInput on a broken one."""
    if folder is None:
        return {}
    found = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            seen = tuple(Seen(**{**each, "work": Work(**each["work"])}) for each in raw["seen"])
            usable = all(s.seconds > 0 and math.isfinite(s.seconds) for s in seen) and seen
            if not usable:
                raise ValueError("no measurement above 0 s")
            found[str(raw["device"])] = Correction(device=str(raw["device"]), seen=seen)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path} is no correction ({error!r}); `edgewise calibrate --device NAME --from "
                "FILE` writes one"
            ) from None
    return found


def _setting(seen: Seen, device: Device) -> Setting:
    return Setting(
        work=seen.work, device=device, threads=seen.threads, engine=seen.engine, kernel=seen.kernel
    )


def _shared(a: Sequence[Miss], b: Sequence[Miss], parts: Mapping[str, float]) -> Floats:
    """Covariance of the errors of two lists of points on one device, without noise."""
    weights = np.array([parts[part] for part in SHARED])
    covariance: Floats = np.tensordot(weights, _alike(a, b), axes=1)
    return covariance


def _noise(points: Sequence[Miss], parts: Mapping[str, float]) -> Floats:
    """What each point's error shares with no other: kernels of prefills differ more."""
    prefill = np.array([each.phase == "prefill" for each in points], float)
    variance: Floats = parts["noise"] + parts["prefill_noise"] * prefill
    return variance


def _alike(a: Sequence[Miss], b: Sequence[Miss]) -> Floats:
    """How much of each part but the noise two lists of points share, from 0 to 1: (parts,a,b)."""

    def same(name: str) -> Floats:
        left, right = (np.array([getattr(each, name) for each in side]) for side in (a, b))
        equal: Floats = (left[:, None] == right).astype(float)
        return equal

    phase = same("phase")
    engine = phase * same("engine")
    form = engine * same("form")
    threads = np.subtract.outer(np.log([k.threads for k in a]), np.log([k.threads for k in b]))
    return np.stack([np.ones_like(phase), phase, engine, form, form * np.exp(-np.abs(threads))])
