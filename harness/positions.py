"""What tokens cost -> where in a long text they cost it: by place in a window, and drift.

Sizes: c windows, m bins, n scored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import BadInput
from harness.losses import Losses
from harness.records import Array

PARTS = 128  # of a text whose course is looked at
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Mean nats of tokens that were asked after `first`..`last` tokens of context, all (m,).

    standard_error: over windows
    """

    first: Array
    last: Array
    nats: Array
    standard_error: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How cost changes along a text, in nats.

    first, last: means over the text's first and last quarter; slope: of a straight line through
    equal parts of it, from the text's beginning to its end; low, high: 95 % interval of the slope
    """

    first: float
    last: float
    slope: float
    low: float
    high: float


def course(losses: Losses, edges: Sequence[int] = ()) -> Course:
    """Mean cost by place in a window.

    edges: places where bins begin, and where the last one ends; a bin for each place by default.
    Raises BadInput for other protocols than windows, and edges that do not rise within a window.
    """
    if losses.protocol != "windows":
        raise BadInput(f"cost by place needs the windows protocol, got {losses.protocol!r}")
    by_window = losses.nats.reshape(-1, losses.window)  # (c,window)
    cuts = np.array(edges or range(losses.window + 1))
    if cuts.size < 2 or (np.diff(cuts) < 1).any() or cuts[0] < 0 or cuts[-1] > losses.window:
        raise BadInput(f"edges must rise from 0 to at most {losses.window}, got {list(edges)}")
    sums = np.add.reduceat(by_window[:, : cuts[-1]], cuts[:-1], axis=1)
    means = sums / np.diff(cuts)  # (c,m)
    return Course(
        first=cuts[:-1] + 1,
        last=cuts[1:],
        nats=means.mean(0),
        standard_error=means.std(0, ddof=1) / np.sqrt(len(means)),
    )


def drift(losses: Losses, against: Losses | None = None) -> Drift:
    """Whether tokens cost more, or less, the longer a text has been read.

    against: what the same tokens cost read otherwise; its cost is taken off, token by token, so
    that what is left is not the text's own difficulty. Raises BadInput for other tokens.
    """
    nats = losses.nats
    if against is not None:
        if not np.array_equal(against.places, losses.places):
            raise BadInput("two readings are compared on the same tokens, and these differ")
        nats = nats - against.nats
    if nats.size < 2 * PARTS:
        raise BadInput(f"a drift needs at least {2 * PARTS} scored tokens, got {nats.size}")
    parts = np.array([part.mean() for part in np.array_split(nats, PARTS)])
    at = (np.arange(PARTS) + 0.5) / PARTS
    slope, reach = _line(at, parts)
    quarter = nats.size // 4
    return Drift(
        first=float(nats[:quarter].mean()),
        last=float(nats[-quarter:].mean()),
        slope=slope,
        low=slope - reach,
        high=slope + reach,
    )


def _line(x: Array, y: Array) -> tuple[float, float]:
    """The slope of a least-squares line, and how far its interval reaches to either side."""
    from scipy import stats  # noqa: PLC0415 - a fifth of a second that a score need not pay

    fit = stats.linregress(x, y)
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, x.size - 2) * fit.stderr
    return float(fit.slope), float(reach)
