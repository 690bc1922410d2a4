"""Row -> what compiling the fused step took before anything was timed."""

from __future__ import annotations

from harness.records import Metric, Row


def value(row: Row) -> float | None:
    """Seconds in the JIT compiler; None where nothing was compiled."""
    return row.compile_seconds


SPEC = Metric(name="compile_seconds", unit="s", better="lower", value=value)
