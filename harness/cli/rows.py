"""Verbs that make and show rows: sweep, table, plot, publish."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import app
from harness.cli.screen import (
    HERE,
    Results,
    bars,
    devices_folder,
    note,
    stored,
    width,
    with_forecasts,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from harness.records import Row
    from harness.sweep import Point

Device = Annotated[list[str] | None, typer.Option(help="Only these (shell patterns); repeatable.")]
Candidate = Annotated[list[str] | None, typer.Option(help="Only these (shell patterns).")]
Workload = Annotated[list[str] | None, typer.Option(help="Only these (shell patterns).")]


@app.command(epilog="Example: edgewise sweep --dry-run")
def sweep(
    file: Annotated[Path | None, typer.Argument(help="A sweep's TOML; ours by default.")] = None,
    results: Results = HERE,
    dry_run: Annotated[bool, typer.Option(help="Count, estimate, do nothing.")] = False,
    quick: Annotated[bool, typer.Option(help="A smoke run: too few samples to publish.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Of a study: trainings at a time.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="Of a study: address of a dask scheduler to run it on.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Of a study: names of arms to do (shell pattern).")
    ] = None,
    again: Annotated[
        str | None, typer.Option(help="Of a study: candidates to make anew (shell pattern).")
    ] = None,
) -> None:
    """Train, compress, score, time, project, decide. Resumable: finished rows are never redone.

    A TOML of arms and claims is a study of quality, such as ours: edgewise sweep quality.toml
    """
    from harness import host
    from harness.cli import studies
    from harness.cli.demonstrate import demonstrate
    from harness.cli.summary import summarise
    from harness.spawn import QUICK, Effort
    from harness.sweep import DEFAULT, estimate, expand, load, run

    host.require_supported()
    if study := studies.find(file):
        studies.run(
            study, results, jobs=jobs, address=cluster, only=only, again=again, dry_run=dry_run
        )
        return
    plan = load(file or DEFAULT, devices_folder())
    points = expand(plan, host.describe().cores)
    runs = sum(len(point.workloads) for point in points)
    seconds = estimate(points, QUICK if quick else Effort(), None if quick else plan.train)
    print(
        f"{plan.title}\n{len({p.candidate for p in points})} candidates, {runs} rows, about "
        f"{seconds / 60:.0f} min on this machine; projected to {len(plan.project.devices)} devices"
    )
    if dry_run:
        for point in points:
            print(f"  {point.candidate}  {point.threads} thread(s)  {', '.join(point.workloads)}")
        return
    begin = time.perf_counter()
    folder = results / host.describe().host
    with bars() as progress:
        if plan.train is not None and not quick and find_spec("torch") is None:
            note("PyTorch is not installed: nothing is trained here; what is shipped is measured")
        elif plan.train is not None and not quick:
            print(demonstrate(plan.train, plan.corpus, progress))
        watch = _Watch(progress, runs)
        rows = run(plan, folder / "rows", watch, quick=quick, devices=devices_folder())
    summarise(rows, plan, folder, f"edgewise sweep {file or ''}".strip())
    note(f"{time.perf_counter() - begin:.0f} s in all")


class _Watch:
    """A bar for the whole sweep and one for the point at hand."""

    def __init__(self, progress: Progress, runs: int) -> None:
        self.progress = progress
        self.whole: TaskID = progress.add_task("sweep", total=runs)
        self.one: TaskID = progress.add_task("", total=None)

    def stage(self, point: Point, text: str, done: int, total: int) -> None:
        name = f"{point.candidate} {point.threads}t: {text}"
        self.progress.update(self.one, description=name, completed=done, total=total)

    def rows(self, point: Point, rows: Sequence[Row]) -> None:
        self.progress.advance(self.whole, len(rows))


@app.command(epilog="Example: edgewise table --device host --workload 'tg64*' --format markdown")
def table(
    results: Results = HERE,
    device: Device = None,
    candidate: Candidate = None,
    workload: Workload = None,
    form: Annotated[
        str, typer.Option("--format", help="terminal, markdown, csv, json or parquet")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    projected: Annotated[bool, typer.Option(help="Also project to the default devices.")] = False,
) -> None:
    """Rows as a table; every number says whether it was measured or projected."""
    from harness import frame, store
    from harness import table as tables
    from harness.errors import BadInput
    from harness.sweep import DEFAULT, load

    rows = stored(results)
    names = [d for d in device or () if not set("*?[") & set(d) and d != "host"]
    if projected or names:
        rows = with_forecasts(rows, names or load(DEFAULT).project.devices)
    rows = frame.select(rows, device or (), candidate or (), workload or ())
    if form == "parquet":
        if output is None:
            raise BadInput("parquet is not text; name a file with --output")
        note(f"wrote {frame.parquet(rows, output)}")
        return
    shapes = {
        "terminal": lambda: tables.terminal(rows, width()),
        "markdown": lambda: tables.markdown(rows),
        "csv": lambda: frame.as_csv(rows),
        "json": lambda: frame.as_json(rows),
    }
    if form not in shapes:
        raise BadInput(f"unknown format {form!r}; known: {', '.join(shapes)}, parquet")
    text = shapes[form]()
    if output is None:
        print(text)
    else:
        store.write_bytes(output, text.encode())
        note(f"wrote {output}")


@app.command(epilog="Example: edgewise plot --results results --output figures")
def plot(
    results: Results = HERE,
    output: Annotated[Path | None, typer.Option(help="Folder for PNG and SVG files.")] = None,
    kernels: Annotated[
        bool, typer.Option(help="Time every kernel for the roofline; a minute the first time.")
    ] = True,
) -> None:
    """Quality against latency, depth, energy and the roofline, as PNG and SVG."""
    from harness.cli.summary import figures
    from harness.sweep import DEFAULT, load

    rows = with_forecasts(stored(results), load(DEFAULT).project.devices)
    for path in figures(rows, output or results / "figures", kernels):
        print(path)


@app.command(epilog="Example: edgewise publish --results results")
def publish(
    file: Annotated[
        Path | None, typer.Argument(help="A study's TOML; the rows of devices by default.")
    ] = None,
    results: Results = HERE,
    readme: Annotated[
        Path | None, typer.Option(help="Also fill the marked blocks of a page.")
    ] = None,
) -> None:
    """Write the tables and figures of a full run, with the command that made them. Refuses quick
    rows."""
    from harness.cli import studies
    from harness.cli.summary import publish as write
    from harness.sweep import DEFAULT, load

    if study := studies.find(file):
        studies.write(study, results)
        return
    for path in write(stored(results), load(DEFAULT), results, readme):
        print(path)
