"""Row -> time from the whole prompt going in to the logits of the first token coming out."""

from __future__ import annotations

from harness import evidence
from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Median of a `ttft` run [s]; None for other workloads."""
    reading = evidence.read(row.seconds)
    return reading.value if reading and row.workload.split()[0] == "ttft" else None


SPEC = Metric(name="seconds_to_first_token", unit="s", better="lower", value=value)
