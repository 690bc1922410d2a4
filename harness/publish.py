"""Rows -> a folder of published tables, with the command that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import frame, store, table
from harness.records import Row


def publish(rows: Sequence[Row], folder: Path, command: str) -> list[Path]:
    """Write table.md and table.csv; returns their paths. Raises BadRow on quick rows."""
    store.refuse_quick(rows)
    page = f"# Results\n\nMade by `{command}`.\n\n{table.markdown(rows)}"
    paths = [folder / "table.md", folder / "table.csv"]
    store.write_bytes(paths[0], page.encode())
    store.write_bytes(paths[1], frame.as_csv(rows).encode())
    return paths
