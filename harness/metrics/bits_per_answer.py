"""Row -> quality of a candidate that was asked what it knows: bits an answer costs it."""

from __future__ import annotations

from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Mean bits; None where the candidate has no score, or another kind of score."""
    known = row.quality is not None and row.quality.metric == "bits per answer"
    return row.quality.value if row.quality and known else None


SPEC = Metric(name="bits_per_answer", unit="bit", better="lower", value=value)
