"""Row -> high-water mark of the worker process, interpreter and compiler included."""

from __future__ import annotations

from harness import evidence
from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Largest resident set of the process [B]."""
    reading = evidence.read(row.peak)
    return reading.value if reading else None


SPEC = Metric(name="peak_bytes", unit="B", better="lower", value=value)
