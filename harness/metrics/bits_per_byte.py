"""Row -> quality of a language candidate: bits needed for a byte of held-out text."""

from __future__ import annotations

from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Bits per byte; None where the candidate has no score, or another kind of score."""
    known = row.quality is not None and row.quality.metric == "bits per byte"
    return row.quality.value if row.quality and known else None


SPEC = Metric(name="bits_per_byte", unit="bit/B", better="lower", value=value)
