"""Row -> quality of a recall candidate: fraction of answers that are right."""

from __future__ import annotations

from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Accuracy from 0 to 1; None where the candidate has no score, or another kind of score."""
    known = row.quality is not None and row.quality.metric == "accuracy"
    return row.quality.value if row.quality and known else None


SPEC = Metric(name="accuracy", unit="", better="higher", value=value)
