"""Observations -> Fit: constants by robust least squares, errors by leaving SoCs out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from harness import intervals, likeness, roofline
from harness.arrays import Floats
from harness.errors import BadInput
from harness.hardware import isa
from harness.observations import Observation
from harness.ours import ENGINE
from harness.roofline import Fit
from harness.scores import Left, errors, left_of
from harness.settings import Setting, pairs, points

MODEL = "roofline-2"
NOISE = 0.2  # standard deviation of a logarithm of seconds that the fit takes for granted
OWN_NOISE = 0.06  # of rows of our own engine, whose conditions are known
PAIRED = 0.12  # standard deviation of the logarithm of what two families do together
STEP = 1e-5  # of a constant in its spread, to see what it changes
ROBUST = 1.5  # residuals beyond so many of it count linearly


def calibrate(observations: Sequence[Observation], left: Sequence[Left] | None = None) -> Fit:
    """The constants that explain these observations, with the intervals of `left`.

    left: leave-one-out results of the published ones; None computes them (some seconds)
    Raises BadInput when no observation is trusted.
    """
    fitted = fit(observations)
    if left is None:
        own = [o for o in observations if o.row < 0]
        left = leave_out([o for o in observations if o.row >= 0], always=own)
    return replace(
        fitted,
        intervals={phase: intervals.fit(errors(left, phase)) for phase in ("decode", "prefill")},
        provenance={
            **fitted.provenance,
            "interval": "90 %, conformal over SoCs left out, scaled by what is doubtful",
            "variances": likeness.fit_variances(
                [(o.setting, x.residual) for x in left if not (o := x.observation).distrusted]
            ),
        },
    )


def fit(observations: Sequence[Observation]) -> Fit:
    """The constants alone, from a cold start at their priors.

    Those of our own engine follow last, from its rows alone: a host that we measured moves
    nothing that is known of other engines and machines.
    """
    trusted = [o for o in observations if not o.distrusted]
    if not trusted:
        raise BadInput("nothing to calibrate on: no observation is trusted")
    names, centres, spreads = _constants(trusted)
    own = np.array([_is_ours(name) for name in names])
    values = centres
    for free, own_rows in ((~own, False), (own, True)):
        rows = [o for o in trusted if (o.setting.engine == ENGINE) == own_rows]
        if rows:
            values = _solve(rows, names, values, np.where(free, spreads, 0.0))
    return replace(_blank(names, values), provenance=_provenance(trusted))


def _is_ours(name: str) -> bool:
    """A constant that only our own engine has."""
    return name.startswith("ours.")


def _solve(
    rows: Sequence[Observation], names: tuple[str, ...], centres: Floats, spreads: Floats
) -> Floats:
    """Values that explain the rows, each with its spread about its centre; 0 fixes it."""
    from scipy.optimize import least_squares  # noqa: PLC0415  (0.3 s that reading a fit spares)

    free = np.flatnonzero(spreads > 0)
    arrays = points([o.setting for o in rows], _blank(names, centres))
    measured = np.log([o.seconds for o in rows])
    weights = _weights(rows)

    def values_at(x: Floats) -> Floats:
        """(k,) of x (free,), or (m,k) of x (m,free)."""
        values = np.tile(centres, (*x.shape[:-1], 1))
        values[..., free] *= np.exp(x * spreads[free])
        return values.reshape(*x.shape[:-1], len(centres))

    def scaled(x: Floats) -> Floats:
        total = roofline.seconds(arrays, names, values_at(x)).total
        return (np.log(total) - measured) * weights

    def residuals(x: Floats) -> Floats:
        return np.concatenate([_soft(scaled(x)), x])

    def slopes(x: Floats) -> Floats:
        moved = x + STEP * np.eye(len(x))
        change = (_soft(scaled(moved)) - _soft(scaled(x))) / STEP
        return np.concatenate([change.T, np.eye(len(x))])

    start = np.zeros(len(free))
    with threadpool_limits(limits=1):  # matrices this small only make threads of BLAS wait
        return values_at(least_squares(residuals, start, slopes, xtol=1e-6, ftol=1e-6).x)


def _constants(trusted: Sequence[Observation]) -> tuple[tuple[str, ...], Floats, Floats]:
    """The priors, and one more constant for every pair of families that these rows show."""
    names, centres, spreads = roofline.priors()
    found = tuple(sorted({name for o in trusted for name in pairs(o.setting)}))
    return (
        (*names, *found),
        np.append(centres, np.ones(len(found))),
        np.append(spreads, np.full(len(found), PAIRED)),
    )


def leave_out(
    observations: Sequence[Observation],
    group: Callable[[Observation], str] = lambda o: o.group,
    always: Sequence[Observation] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Left, ...]:
    """Every observation as projected by a fit without its group, in the order given.

    Distrusted rows are projected too; they enter no fit. always: rows that every fit knows, those
    of the host. `progress` is told each group.
    """
    found: dict[int, Left] = {}
    groups = list(dict.fromkeys(group(o) for o in observations))
    for name in groups:
        progress(name)
        inside = [i for i, o in enumerate(observations) if group(o) == name]
        fitted = fit([*(o for o in observations if group(o) != name), *always])
        times = steps([observations[i].setting for i in inside], fitted)
        for i, seconds in zip(inside, times.tolist(), strict=True):
            found[i] = left_of(observations[i], seconds, fitted)
    return tuple(found[i] for i in range(len(observations)))


def steps(settings: Sequence[Setting], fitted: Fit) -> Floats:
    """Seconds of a step of each setting."""
    arrays = points(settings, fitted)
    return roofline.seconds(arrays, fitted.names, fitted.values).total


def _weights(observations: Sequence[Observation]) -> Floats:
    """One over the noise; published rows by rows^(1/4), so that a device counts as their root."""
    groups = Counter(o.setting.device.name for o in observations)
    return np.array(
        [
            1 / OWN_NOISE if o.row < 0 else groups[o.setting.device.name] ** -0.25 / NOISE
            for o in observations
        ]
    )


def _soft(scaled: Floats) -> Floats:
    """Residuals whose squares grow linearly beyond ROBUST (pseudo-Huber)."""
    inner = np.sqrt(1 + (scaled / ROBUST) ** 2) - 1
    softened: Floats = np.sign(scaled) * ROBUST * np.sqrt(2 * inner)
    return softened


def _blank(names: tuple[str, ...], centres: Floats) -> Fit:
    return Fit(model=MODEL, names=names, values=centres, intervals={}, provenance={})


def _provenance(trusted: Sequence[Observation]) -> dict[str, object]:
    ours = [o for o in trusted if o.row < 0]
    return {
        "published_rows": len(trusted) - len(ours),
        "own_rows": len(ours),
        "devices": len({o.setting.device.name for o in trusted}),
        "isa": sorted({isa(o.setting.device, o.setting.threads) for o in ours}),
    }
