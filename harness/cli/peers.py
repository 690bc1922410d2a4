"""The verb that sets our engine beside the ones people use."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import app
from harness.cli.screen import HERE, AsJson, Results, bars, note, show_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from harness.peers.frame import Cell


@app.command(epilog="Example: edgewise peers matvec --fresh")
def peers(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GROUP]...", help="See `edgewise list groups`; all by default."),
    ] = None,
    results: Results = HERE,
    fresh: Annotated[
        bool, typer.Option(help="Measure again what an earlier run has finished.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="A smoke test: nothing of it is published.")] = False,
    readme: Annotated[
        Path | None, typer.Option(help="Also fill the marked block of a page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Our engine against llama.cpp, PyTorch and ONNX Runtime, side by side; one row a cell.

    A run that is stopped goes on with the first group that was not finished.
    """
    from harness import host, plugins
    from harness.peers import groups, report, runner

    host.require_supported()
    chosen = names or list(groups.every())
    for name in chosen:
        plugins.pick(groups.every(), name, "group")
    folder = results / "peers"
    with bars() as progress, TemporaryDirectory(prefix="edgewise-") as passing:
        watch = _Watch(progress, len(chosen))
        kept = Path(passing) if quick else folder
        found = runner.run(chosen, kept, watch, fresh=fresh, quick=quick)
    if as_json:
        show_json([cell for done in found for cell in done.cells])
    else:
        print(report.markdown(found))
    if quick or names:
        note("not published: only a whole run is" if names else "not published: quick")
        return
    for path in report.write(found, folder, readme):
        note(f"wrote {path}")


class _Watch:
    """A bar for all groups and one for the cells of the group at hand."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress = progress
        self.whole: TaskID = progress.add_task("peers", total=total)
        self.one: TaskID | None = None

    def starts(self, group: str, cells: int) -> None:
        if self.one is not None:
            self.progress.remove_task(self.one)
            self.progress.advance(self.whole)
        self.one = self.progress.add_task(group, total=cells)

    def says(self, group: str, text: str) -> None:
        if self.one is not None:
            self.progress.update(self.one, description=f"{group}: {text}")

    def cell(self, group: str, cell: Cell) -> None:
        if self.one is not None:
            self.progress.advance(self.one)
