"""Rows + metrics -> the rows that no other row of their kind beats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness import evidence
from harness.records import Metric, Row


def pareto(rows: Iterable[Row], metrics: Sequence[Metric], *, together: bool = False) -> list[Row]:
    """Rows that no other row of the same device, workload and kind of evidence beats.

    A row beats another when it is as good in every metric and better in one. Rows that a metric
    cannot tell are left out. together: let measured and projected rows compete.
    """
    groups: dict[tuple[str, ...], list[tuple[tuple[float, ...], Row]]] = {}
    for row in measured_first(rows):
        values = [metric.value(row) for metric in metrics]
        costs = tuple(
            value if metric.better == "lower" else -value
            for metric, value in zip(metrics, values, strict=True)
            if value is not None
        )
        if len(costs) == len(metrics):
            kind = () if together else (_host(row), _kinds(row, metrics))
            groups.setdefault((row.device, row.workload, *kind), []).append((costs, row))
    return [
        row
        for group in groups.values()
        for costs, row in sorted(group, key=lambda pair: pair[0])
        if not any(_beats(other, costs) for other, _ in group)
    ]


def measured_first(rows: Iterable[Row]) -> list[Row]:
    """The rows without those projections that a measured row of the same run replaces."""
    rows = list(rows)
    measured = {_run(row) for row in rows if evidence.mark(row.seconds) == "M"}
    return [r for r in rows if evidence.mark(r.seconds) != "P" or _run(r) not in measured]


def _run(row: Row) -> tuple[str, ...]:
    return (row.candidate, row.device, row.workload, row.engine, str(row.threads))


def _host(row: Row) -> str:
    return row.environment.host if row.environment else ""


def _kinds(row: Row, metrics: Sequence[Metric]) -> str:
    """The evidence the metrics rest on: times never compete across kinds, nor energies."""
    energy = any("joules" in metric.name for metric in metrics)
    return evidence.mark(row.seconds) + (evidence.mark(row.joules) if energy else "")


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
