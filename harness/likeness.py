"""Errors of projections on one device -> what they tell of another point there.

Logarithms of published over projected seconds of one device are taken for a Gaussian process:
they share something of the device, of the phase, of the engine, and of engine and format, the
more the closer their thread counts. The variances are fitted to rows of devices left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from harness import ours, roofline
from harness.arrays import Floats
from harness.records import Miss
from harness.roofline import Fit
from harness.settings import Setting

SHARED = ("device", "phase", "engine", "format", "threads")  # what two errors may have in common
NOISES = ("noise", "prefill_noise")  # what they have not; prefills have both
PARTS = (*SHARED, *NOISES)
START = 0.02  # variance of each part before it is fitted, and where a weak prior holds it
LIMIT = 0.4  # residuals beyond, twice a fit's noise, say no more of what rows share [logarithm]


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


def miss(setting: Setting, error: float) -> Miss:
    """An error at this setting."""
    engine = roofline.family("engine", setting.engine) or "other"
    name = max(setting.work.weights, key=lambda form: setting.work.weights[form])
    about = "numba_format" if engine == ours.ENGINE else "format"
    form = f"{engine} {roofline.family(about, name)} {setting.kernel}"
    return Miss(
        phase=setting.work.phase, engine=engine, form=form, threads=setting.threads, error=error
    )


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
    with threadpool_limits(limits=1):  # matrices this small only make threads of BLAS wait
        found = minimize(loss, start, method="L-BFGS-B", options={"maxiter": 40}).x
    return {part: round(float(v), 5) for part, v in zip(PARTS, np.exp(found), strict=True)}


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
