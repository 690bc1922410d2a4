"""Row -> decode latency: seconds for one generated token."""

from __future__ import annotations

from harness import evidence
from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Median of the run divided among its tokens [s]; None for a prefill."""
    reading = evidence.per(evidence.read(row.seconds), row.tokens)
    return reading.value if reading and row.phase == "decode" else None


SPEC = Metric(name="seconds_per_token", unit="s", better="lower", value=value)
