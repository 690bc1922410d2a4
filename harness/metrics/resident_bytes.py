"""Row -> memory that stays occupied: weights, KV cache or state, scratch."""

from __future__ import annotations

from harness import evidence
from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Bytes counted from the arrays of the engine [B]."""
    reading = evidence.read(row.resident)
    return reading.value if reading else None


SPEC = Metric(name="resident_bytes", unit="B", better="lower", value=value)
