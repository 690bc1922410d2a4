"""Verbs about projections themselves: truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import app
from harness.cli.screen import bars, note


@app.command(epilog="Example: edgewise truth --write results/projection")
def truth(
    write: Annotated[Path | None, typer.Option(help="Folder for table, page and figure.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="A truth.csv: fail where an error has grown by a tenth.")
    ] = None,
) -> None:
    """How wrong projections are: every published row by a fit that has not seen its SoC, its
    engine or its model."""
    from harness import calibrate, observations, store
    from harness import truth as tables
    from harness.plot import truth_figure
    from targets import profile

    known = observations.published({d.name: d for d in profile.load_all()})
    left = {}
    with bars() as progress:
        for unseen, group in tables.UNSEEN.items():
            task = progress.add_task("", total=len({group(o) for o in known}))

            def watch(name: str, unseen: str = unseen, task: int = task) -> None:
                progress.update(task, advance=1, description=f"without {unseen} {name}")  # type: ignore[arg-type]

            left[unseen] = calibrate.leave_out(known, group, progress=watch)
    found = tables.Truth(left=left, fit=calibrate.calibrate(known, left["SoC"]))
    command = "nox -s projection"
    print("\n".join(tables.table(found)))
    if write is not None:
        store.write_bytes(write / "truth.csv", tables.as_csv(found).encode())
        store.write_bytes(write / "README.md", tables.markdown(found, command).encode())
        figure = truth_figure(left["SoC"], write / "projected_published")
        note(f"wrote {write}/truth.csv, {write}/README.md, {figure}")
    if check is not None:
        grown = tables.check(tables.rows(found), check)
        for line in grown:
            print(f"grown: {line}")
        if grown:
            raise typer.Exit(1)
