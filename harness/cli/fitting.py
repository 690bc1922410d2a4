"""Verbs about the fit that projections use: how wrong it is, and making it anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import app
from harness.cli.screen import bars, devices_folder, note, stored
from harness.cli.screen import device as load_device
from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.observations import Observation
    from harness.scores import Left
    from targets.profile import Device

Measured = Annotated[
    Path | None, typer.Option("--results", help="Measured rows of our engine, to fit it on too.")
]


@app.command(epilog="Example: edgewise truth --write results/projection")
def truth(
    results: Measured = None,
    write: Annotated[Path | None, typer.Option(help="Folder for table, page and figure.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Also fill the block of a page.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="A truth.csv: fail where an error has grown by a tenth.")
    ] = None,
) -> None:
    """How wrong projections are: every published row by a fit that has not seen its SoC, its
    engine or its model."""
    from harness import calibrate, joules, publish, store
    from harness import truth as tables
    from harness.plot import truth_figure

    devices, known, own = _observations(results)
    left = {unseen: _without(known, unseen, group) for unseen, group in tables.UNSEEN.items()}
    groups = tables.OURS if own else {}
    ours = {unseen: _without(own, unseen, group, known) for unseen, group in groups.items()}
    found = tables.Truth(
        left=left,
        own=ours,
        fit=calibrate.calibrate([*known, *own], left["SoC"]),
        power=joules.compare(left["SoC"], devices),
    )
    print(
        "\n".join(
            [*tables.table(left), "", *tables.findings(found), "", *joules.lines(found.power)]
        )
    )
    if write is not None:
        store.write_bytes(write / "truth.csv", tables.as_csv(found).encode())
        page = tables.markdown(found, "nox -s projection")
        store.write_bytes(write / "README.md", page.encode())
        figure = truth_figure(left["SoC"], write / "projected_published")
        note(f"wrote {write}/truth.csv, {write}/README.md, {figure}")
    if readme is not None:
        note(f"wrote {publish.fill(readme, {'projection': tables.short(found)})}")
    if check is not None:
        grown = tables.check(tables.rows(found), check)
        for line in grown:
            print(f"grown: {line}")
        if grown:
            raise typer.Exit(1)


@app.command(
    epilog="Examples: edgewise calibrate --results results --write; "
    "edgewise --devices mine calibrate --device rpi5 --from llama_bench.md"
)
def calibrate(
    results: Measured = None,
    write: Annotated[bool, typer.Option(help="Keep the fit as the one projections use.")] = False,
    device: Annotated[
        str | None, typer.Option(help="Correct projections for this device only, with --from.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="llama-bench output from it, or a folder of its rows."),
    ] = None,
) -> None:
    """Fit the projection on published measurements, and print how wrong it is on SoCs left out."""
    from harness import calibrate as fitting
    from harness import roofline, store
    from harness import truth as tables

    if (device is None) != (source is None):
        raise BadInput("--device and --from belong together: what was measured, and on what")
    if device is not None and source is not None:
        _correct(device, source)
        return
    _, known, own = _observations(results)
    left = _without(known, "SoC", tables.UNSEEN["SoC"], own)
    print("\n".join(tables.table({"SoC": left})))
    if write:
        found = fitting.calibrate([*known, *own], left)
        store.write_bytes(roofline.FIT, roofline.as_json(found).encode())
        note(f"wrote {roofline.FIT}")


def _observations(
    results: Path | None,
) -> tuple[dict[str, Device], Sequence[Observation], Sequence[Observation]]:
    """Devices, published rows, and those of our engine in a folder of results."""
    from harness import forecast, observations
    from targets import profile

    devices = {d.name: d for d in profile.load_all(devices_folder())}
    known = observations.published(devices)
    if results is None:
        return devices, known, ()
    rows = [row for row in stored(results) if row.environment]
    own = observations.own(rows, devices, forecast.workload_of)
    if rows and not own:
        note(
            "no row is of a known device: write this machine's profile with "
            "`edgewise doctor --write FOLDER/HOST.toml` and give --devices FOLDER"
        )
    return devices, known, own


def _without(
    rows: Sequence[Observation],
    unseen: str,
    group: Callable[[Observation], str],
    always: Sequence[Observation] = (),
) -> Sequence[Left]:
    """Every row by a fit that has not seen its group, with a bar."""
    from harness.calibrate import leave_out

    with bars() as progress:
        task = progress.add_task("", total=len({group(o) for o in rows}))

        def watch(name: str) -> None:
            progress.update(task, advance=1, description=f"without {unseen} {name}")

        return leave_out(rows, group, always, watch)


def _correct(name: str, source: Path) -> None:
    """Say what a few measurements of a device change; keep them beside a folder's profiles, with
    those from before."""
    from harness import benched, correct, forecast, observations, roofline, store

    place, folder = load_device(name), devices_folder()
    if source.is_dir():
        known = ((row, row.environment) for row in stored(source))
        rows = [row for row, where in known if where and name in (row.device, where.host)]
        own = observations.own(rows, {name: place}, forecast.workload_of)
        if not own:
            raise BadInput(f"{source} holds no measured row of {name}")
        found = correct.of_settings([(o.setting, o.seconds, o.source) for o in own], name)
    else:
        found = correct.of_lines(benched.read(source, name), place)
    if folder is None:
        note("give `edgewise --devices FOLDER ...` to keep this correction beside your profiles")
    else:
        path, new = correct.file_of(name, folder), len(found.seen)
        if path.exists():
            found = correct.joined(correct.load(path), found)
        store.write_bytes(path, correct.as_json(found).encode())
        before = f", {len(found.seen) - new} from before" if len(found.seen) > new else ""
        note(f"wrote {path}: measurements: {new} new{before}; verbs with --devices {folder} use it")
    print(
        f"{'tokens/s of ' + name:44} {'measured':>10} {'projected':>10} {'corrected':>10}  interval"
    )
    print("\n".join(correct.told(found, place, roofline.load())))
