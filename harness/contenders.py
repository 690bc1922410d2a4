"""Published scores -> contenders: models in a format, how good they are, and which is best.

Scores of one suite are comparable: one text or test, one tokenizer, one metric; those of two
suites never are. A model that was scored in 16 bits could be squeezed; how good it then is, where
nobody published it, is not known, and such a contender has no score.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from harness import roofline
from harness.arrays import Floats, Ints
from harness.errors import BadInput
from harness.stats import REACH_95

QUALITY = roofline.FOLDER / "quality.csv"
WHOLE = "f16"  # the format that others are squeezed from
NOTHING, NO_EVIDENCE = -2, -1  # none holds the budget; none that does has a score
WORDS = {NOTHING: "nothing holds", NO_EVIDENCE: "no evidence"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A model in a format. score: value, low, high (95 %); None where there is no evidence.

    better: 1 where a lower score is better, else -1
    """

    suite: str
    title: str  # of the model, for people
    model: str
    form: str
    engine: str
    metric: str
    better: float
    score: tuple[float, float, float] | None
    source: str
    caveat: str  # of the suite

    @property
    def name(self) -> str:
        return f"{self.title} {self.form}"

    def asked(self, depth: int) -> Mapping[str, str]:
        """A decode at this depth, as a line for `reported.read`."""
        return {
            "model": self.model,
            "weights_format": self.form,
            "engine": self.engine,
            "phase": "decode",
            "context_or_n": f"tg1 @ d{depth}",
            "threads": "1",
        }


@cache
def suites(path: Path = QUALITY) -> Mapping[str, tuple[Contender, ...]]:
    """The contenders of each suite, those without a score last. Raises BadInput."""
    found: dict[str, list[Contender]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                one = _contender(row)
                found.setdefault(one.suite, []).append(one)
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{path} holds no scores: {error!r}") from None
    forms = dict.fromkeys(
        one.form for group in found.values() for one in group if one.engine == "llama.cpp"
    )
    return {
        suite: (
            *group,
            *(_squeezed(one, form) for one in group for form in _missing(one, group, forms)),
        )
        for suite, group in found.items()
    }


def choose(holds: np.ndarray, field: Sequence[Contender], sizes: Floats) -> tuple[Ints, np.ndarray]:
    """Of those that hold the budget (n,w): which to take (n,), and which are as good (n,w).

    Of the best and all whose intervals overlap with its own, the one of fewest bytes: what is
    beyond it buys nothing that can be told. NO_EVIDENCE, NOTHING where none can be taken.
    sizes: (w,) bytes that a token reads
    """
    low, value, high = _scores(field)
    scored = holds & np.isfinite(value)
    best = np.where(scored, value, np.inf).argmin(axis=1)
    tied = scored & (low <= high[best][:, None]) & (low[best][:, None] <= high)
    chosen = np.where(tied, sizes, np.inf).argmin(axis=1)
    nobody = np.where(holds.any(axis=1), NO_EVIDENCE, NOTHING)
    return np.where(scored.any(axis=1), chosen, nobody), tied


def alike(one: int, field: Sequence[Contender]) -> Ints:
    """Which contenders, with itself, cannot be told from this one."""
    low, _, high = _scores(field)
    return np.flatnonzero((low <= high[one]) & (low[one] <= high))


def beyond(one: int, field: Sequence[Contender]) -> Ints:
    """Which contenders are better than this one beyond doubt; all with a score for NOTHING."""
    low, value, high = _scores(field)
    if one < 0:
        return np.flatnonzero(np.isfinite(value))
    return np.flatnonzero(high < low[one])


def _scores(field: Sequence[Contender]) -> tuple[Floats, Floats, Floats]:
    """Low, value and high so that less is better; nan where there is none."""
    raw = np.array(
        [
            np.multiply(one.better, one.score) if one.score else (math.nan, math.nan, math.nan)
            for one in field
        ]
    )
    return raw.min(axis=1), raw[:, 0], raw.max(axis=1)


def _contender(row: Mapping[str, str]) -> Contender:
    value, error = float(row["value"]), float(row["error"])
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        raise ValueError(f"{row['model']}: {value} with an error of {error}")
    return Contender(
        suite=row["suite"],
        title=row["name"],
        model=row["model"],
        form=row["weights_format"],
        engine=row["engine"],
        metric=row["metric"],
        better={"less": 1.0, "more": -1.0}[row["better"]],
        score=(value, value - REACH_95 * error, value + REACH_95 * error),
        source=row["source"],
        caveat=row["caveat"],
    )


def _missing(one: Contender, group: Sequence[Contender], forms: Mapping[str, None]) -> list[str]:
    """Formats that a model scored in 16 bits could be in, and in which nobody scored it."""
    known = {other.form for other in group if other.model == one.model}
    return [form for form in forms if form not in known] if one.form == WHOLE else []


def _squeezed(one: Contender, form: str) -> Contender:
    return replace(one, form=form, score=None, source="")
