"""Measured groups -> peers.csv, a Markdown table, the README's block."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from harness import publish, store
from harness.errors import BadInput
from harness.peers import groups
from harness.peers.frame import Cell
from harness.peers.runner import Done
from harness.table import si

COLUMNS = ("cell", "ours", "theirs", "unit", "ratio", "bar", "met")
HEAD = "| cell | ours | theirs | ratio | bar | met |\n|---|--:|--:|--:|---|---|"
BLOCK = "peers"
SMALL = 12  # cells of a group that the README shows whole


def as_csv(found: Sequence[Done]) -> str:
    """One row a cell; an empty field is a number that could not be had."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in (cell for done in found for cell in done.cells):
        values = (getattr(cell, column) for column in COLUMNS)
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return out.getvalue()


def markdown(found: Sequence[Done]) -> str:
    """Every cell with its note, by group, then what the peers are."""
    parts = []
    for done in found:
        group = groups.every()[done.group]
        rows = "\n".join(_row(cell, notes=True) for cell in done.cells)
        head = HEAD.replace(" met |", " met | note |").replace("---|---|", "---|---|---|", 1)
        shown = [f"## {group.summary}", f"{head}\n{rows}", group.table(done.cells), _time(done)]
        parts.append("\n\n".join(filter(None, shown)))
    parts.append(f"## The peers\n\n{_peers(found)}")
    return "\n\n".join(parts) + "\n"


def block(found: Sequence[Done], folder: str) -> str:
    """For the README: all cells of a small group; of others headlines, and bars not met."""
    rows = [
        _row(cell, notes=False)
        for done in found
        for cell in done.cells
        if len(done.cells) <= SMALL or cell.headline or cell.met in ("no", "failed")
    ]
    counts = [cell.met for done in found for cell in done.cells]
    kinds = ("yes", "no", "unresolved", "failed")
    said = ", ".join(f"{counts.count(kind)} {kind}" for kind in kinds if kind in counts)
    return "\n".join([
        HEAD, *rows, "",
        f"{len(counts)} cells in all ([every one]({folder}/peers.md), "
        f"[as CSV]({folder}/peers.csv)); bars met: {said}. Sides take turns in one run; "
        "figures are medians, ratios are paired within a round, and a bar counts as met, or not, "
        "when the whole 95 % interval of the ratio says so.", "",
        _peers(found),
    ])  # fmt: skip


def write(found: Sequence[Done], folder: Path, readme: Path | None) -> list[Path]:
    """The tables, and the block of a page. Raises BadInput on quick runs."""
    if any(done.quick for done in found):
        raise BadInput("a quick run is not published; run it without --quick")
    paths = [folder / "peers.csv", folder / "peers.md"]
    store.write_bytes(paths[0], as_csv(found).encode())
    title = "# Side by side with other engines\n\nMade by `nox -s peers`.\n\n"
    store.write_bytes(paths[1], (title + markdown(found)).encode())
    for done in found:
        draw = groups.every()[done.group].figure
        drawn = draw(done.cells, folder / f"{done.group}.png") if draw else None
        paths += [drawn] if drawn else []
    if readme is not None:
        paths.append(publish.fill(readme, {BLOCK: block(found, folder.as_posix())}))
    return paths


def _row(cell: Cell, notes: bool) -> str:
    ours, theirs = (_value(value, cell.unit) for value in (cell.ours, cell.theirs))
    cells = [cell.cell, ours, theirs, _ratio(cell), cell.bar or "-", cell.met or "-"]
    return f"| {' | '.join(cells + [cell.note] * notes)} |"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if unit == "1" else si(value, unit)


def _ratio(cell: Cell) -> str:
    if cell.ratio is None:
        return "-"
    if cell.low is None or cell.high is None:
        return f"{cell.ratio:.2f}"
    return f"{cell.ratio:.2f} ({cell.low:.2f} to {cell.high:.2f})"


def _time(done: Done) -> str:
    environment = done.environment
    commit = environment.get("commit", "")[:12] + (" (changed)" if environment.get("dirty") else "")
    return (
        f"{environment.get('cpu', '')}, {environment.get('cores')} cores, "
        f"{environment.get('started', '')}, commit {commit}, {done.seconds:.0f} s."
    )


def _peers(found: Sequence[Done]) -> str:
    said = {name: text for done in found for name, text in done.peers.items()}
    return "\n".join(f"- **{name}**: {text}" for name, text in sorted(said.items()))
