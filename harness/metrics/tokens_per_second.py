"""Row -> throughput: tokens generated, or read in a prefill, in one second."""

from __future__ import annotations

from harness import evidence
from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Tokens of the run over its median time [1/s]."""
    reading = evidence.read(row.seconds)
    return row.tokens / reading.value if reading and reading.value > 0 else None


SPEC = Metric(name="tokens_per_second", unit="1/s", better="higher", value=value)
