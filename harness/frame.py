"""Rows -> the chosen ones in order -> flat records for programs: CSV, JSON, Parquet.

All figures are in SI units without prefixes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from harness import evidence, plugins, stats, store
from harness.errors import UnknownName
from harness.records import Measured, Projected, Row


def select(
    rows: Iterable[Row],
    devices: Sequence[str] = (),
    candidates: Sequence[str] = (),
    workloads: Sequence[str] = (),
) -> list[Row]:
    """The rows whose names match one of the patterns of each kind (`rpi*`); none given, all.

    Raises UnknownName when a pattern matches nothing, with the names there are.
    """
    chosen = list(rows)
    wanted = {"device": devices, "candidate": candidates, "workload": workloads}
    for what, patterns in wanted.items():
        names = [str(getattr(row, what)) for row in chosen]
        known = set(names)
        for pattern in patterns:
            if not any(fnmatchcase(n, pattern) for n in known):
                have = ", ".join(sorted(known)) or "none"
                raise UnknownName(f"no row has {what} {pattern!r}; there are: {have}")
        if patterns:
            pairs = zip(chosen, names, strict=True)
            chosen = [r for r, name in pairs if any(fnmatchcase(name, p) for p in patterns)]
    return chosen


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Measured devices first, then by device, workload, threads, engine, size and candidate."""
    return sorted(rows, key=lambda row: (place(row), _size(row), row.candidate))


def place(row: Row) -> tuple[bool, str, str, bool, str, int, int, int, str]:
    """Where and how a row ran; rows with the same place stand in one block of a table."""
    kind = row.workload.split()[0].rstrip("0123456789")
    host = row.environment.host if row.environment else ""
    how = (row.phase == "decode", kind, row.tokens, row.depth, row.threads, row.engine)
    return row.environment is None, row.device, host, *how


def _size(row: Row) -> str:
    return row.candidate.partition(":")[2].partition("@")[0]


def records(rows: Iterable[Row]) -> list[dict[str, str | float | bool | None]]:
    """Flat records in SI units: the inputs, every metric, intervals and kinds of evidence."""
    found = []
    for row in ordered(rows):
        flat: dict[str, str | float | bool | None] = {
            name: getattr(row, name)
            for name in (
                *("candidate", "device", "workload", "phase", "tokens", "depth", "threads"),
                *("engine", "parameters", "weight_bytes", "state_bytes", "operations", "seed"),
            )
        }
        flat |= {name: metric.value(row) for name, metric in plugins.metrics().items()}
        for name, item in (("seconds", row.seconds), ("joules", row.joules)):
            reading = evidence.read(item)
            flat[f"{name}_evidence"] = item.kind
            flat[f"{name}_source"] = reading.source if reading else evidence.reason(item)
            flat[name] = reading.value if reading else None
            flat[f"{name}_low"] = reading.low if reading else None
            flat[f"{name}_high"] = reading.high if reading else None
        samples = row.seconds.samples if isinstance(row.seconds, Measured) else ()
        flat["seconds_p90"] = stats.p90(samples) if samples else None
        flat["bound"] = row.seconds.bound if isinstance(row.seconds, Projected) else None
        flat["resident_evidence"] = row.resident.kind
        flat["quality_standard_error"] = row.quality.standard_error if row.quality else None
        flat["corpus"] = row.quality.corpus if row.quality else None
        flat["corpus_hash"] = row.quality.corpus_hash if row.quality else None
        flat["host"] = row.environment.host if row.environment else None
        flat["started"] = row.environment.started if row.environment else None
        flat["commit"] = row.environment.commit if row.environment else None
        flat["dirty"] = row.environment.dirty if row.environment else None
        flat |= {"flags": "; ".join(evidence.notes(row)), "quick": row.quick, "schema": row.schema}
        flat |= {"recipe_hash": row.recipe_hash, "checkpoint_hash": row.checkpoint_hash}
        found.append(flat)
    return found


def as_csv(rows: Iterable[Row]) -> str:
    """`records` with a heading; a missing number is an empty cell."""
    flat = records(rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def as_json(rows: Iterable[Row]) -> str:
    """`records` as a JSON list; a missing number is null."""
    return json.dumps(records(rows), indent=1, allow_nan=False) + "\n"


def parquet(rows: Iterable[Row], path: Path) -> Path:
    """`records` as a Parquet file, written whole or not at all."""
    import pandas as pd  # noqa: PLC0415  half a second that other formats need not pay

    out = io.BytesIO()
    pd.DataFrame(records(rows)).to_parquet(out, engine="pyarrow", index=False)
    store.write_bytes(path, out.getvalue())
    return path
