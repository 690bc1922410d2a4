"""Rows -> a folder of published tables, and the marked blocks of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import frame, store, table
from harness.errors import BadInput
from harness.records import Row


def publish(rows: Sequence[Row], folder: Path, command: str) -> list[Path]:
    """Write table.md and table.csv; returns their paths. Raises BadRow on quick rows."""
    store.refuse_quick(rows)
    page = f"# Results\n\nMade by `{command}`.\n\n{table.markdown(rows)}"
    paths = [folder / "table.md", folder / "table.csv"]
    store.write_bytes(paths[0], page.encode())
    store.write_bytes(paths[1], frame.as_csv(rows).encode())
    return paths


def fill(page: Path, blocks: Mapping[str, str]) -> Path:
    """Put each text between `<!-- NAME -->` and `<!-- /NAME -->` of a page.

    Raises BadInput when the page lacks a block.
    """
    if not page.is_file():
        raise BadInput(f"there is no page {page} to fill")
    text = page.read_text("utf-8")
    for name, content in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        found = pattern.search(text)
        if found is None:
            raise BadInput(f"{page} has no block <!-- {name} --> ... <!-- /{name} -->")
        text = f"{text[: found.end(1)]}{content.rstrip()}\n{text[found.start(2) :]}"
    store.write_bytes(page, text.encode())
    return page
