"""Verbs that answer from rows and profiles: recommend, project, calibrate, target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import app
from harness.cli.screen import (
    HERE,
    AsJson,
    Results,
    devices_folder,
    fit,
    note,
    stored,
    width,
    with_forecasts,
)
from harness.cli.screen import (
    device as load_device,
)
from harness.errors import BadInput


@app.command(
    epilog="Example: edgewise recommend --device rpi5 --min-tokens-per-second 20 "
    "--max-memory 64MiB --max-joules-per-token 0.2"
)
def recommend(
    device: Annotated[str | None, typer.Option(help="One device; all of them by default.")] = None,
    min_tokens_per_second: Annotated[float | None, typer.Option()] = None,
    max_memory: Annotated[str | None, typer.Option(help="e.g. 64MiB")] = None,
    max_joules_per_token: Annotated[float | None, typer.Option()] = None,
    max_seconds_to_first_token: Annotated[float | None, typer.Option()] = None,
    max_seconds_per_training_step: Annotated[float | None, typer.Option()] = None,
    max_training_memory: Annotated[str | None, typer.Option(help="e.g. 256MiB")] = None,
    max_bits_per_byte: Annotated[float | None, typer.Option()] = None,
    depth: Annotated[int, typer.Option(min=0, help="Context depth of the decode.")] = 0,
    together: Annotated[bool, typer.Option(help="Rank projections among measurements.")] = False,
    results: Results = HERE,
    as_json: AsJson = False,
) -> None:
    """Which candidate, on which device, within these limits; and why the others fell out."""
    from harness import answer, decide, judge
    from harness.sweep import DEFAULT, load

    limits = judge.Limits(
        min_tokens_per_second=min_tokens_per_second,
        max_memory_bytes=None if max_memory is None else judge.parse_bytes(max_memory),
        max_joules_per_token=max_joules_per_token,
        max_seconds_to_first_token=max_seconds_to_first_token,
        max_seconds_per_training_step=max_seconds_per_training_step,
        max_training_memory_bytes=judge.parse_bytes(max_training_memory)
        if max_training_memory
        else None,
        max_bits_per_byte=max_bits_per_byte,
    )
    if device is not None and device != "host":
        load_device(device)  # an unknown name fails before anything is projected
    wanted = load(DEFAULT).project.devices if device in (None, "host") else (device,)
    rows = with_forecasts(stored(results), wanted)
    found = decide.recommend(rows, device, limits, depth=depth, together=together)
    if as_json:
        print(answer.as_json(found))
    else:
        print(answer.text(found, width()))


@app.command(
    epilog="Examples: edgewise project --device rpi5 --candidate mcsd:110m@int4; "
    "edgewise project --table queries.csv --out predictions.csv"
)
def project(
    device: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    candidate: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="The fastest count by default.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV of questions, with the columns of published.csv.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where answers go; stdout by default.")] = None,
    warm: Annotated[
        bool, typer.Option("--sustained", help="The speed after minutes, not of the first one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Time, energy and memory on a device that is not here, with an interval and what binds it."""
    from harness import forecast, frame, sustained
    from harness import table as tables

    if table is not None:
        if device or candidate or workload or threads or warm or as_json:
            raise BadInput("--table asks by its own columns, and goes with --out alone")
        _answer(table, out)
        return
    if not device or not candidate:
        raise BadInput("give --device and --candidate, or --table FILE with questions")
    known = fit()
    rows = [
        forecast.point(name, run, load_device(place), threads, known)
        for place in device
        for name in candidate
        for run in workload or ["tg64", "tg64 @ d4096", "pp128"]
    ]
    if warm:
        rows = [sustained.row(row, load_device(row.device)) for row in rows]
    print(frame.as_json(rows) if as_json else tables.terminal(rows, width()))


def _answer(path: Path, out: Path | None) -> None:
    """Every question of a table, in order."""
    from harness import queries, store
    from targets import profile

    rows, columns = queries.read(path)
    devices = {d.name: d for d in profile.load_all(devices_folder())}
    answers = queries.answers(rows, devices, fit())
    text = queries.write(rows, columns, answers)
    if out is None:
        print(text, end="")
        return
    store.write_bytes(out, text.encode())
    refused = sum(not answer["tokens_per_s"] for answer in answers)
    note(f"wrote {out}: {len(rows)} rows, {refused} of them without a projection (see note)")


@app.command(epilog="Example: edgewise target rpi5")
def target(
    device: Annotated[str, typer.Argument(help="See `edgewise list devices`.")],
    results: Results = HERE,
) -> None:
    """The default sweep for one device: measured if this is it, else from rows brought from it,
    else projected."""
    from harness import host, table
    from harness.cli.rows import sweep as measure_here

    load_device(device)
    here = host.describe(devices=devices_folder()).device == device
    if here:
        note(f"this machine is {device}: measuring")
        measure_here(results=results)
    rows = [row for row in with_forecasts(stored(results), (device,)) if row.device == device]
    brought = any(row.environment for row in rows)
    note("measured" if here else "rows brought from it" if brought else "projected: not measured")
    print(table.terminal(rows, width()))
