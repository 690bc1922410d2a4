"""Row -> energy for one token, metered or modelled as its evidence says."""

from __future__ import annotations

from harness import evidence
from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Median energy of the run divided among its tokens [J]."""
    reading = evidence.per(evidence.read(row.joules), row.tokens)
    return reading.value if reading else None


SPEC = Metric(name="joules_per_token", unit="J", better="lower", value=value)
