"""Verbs about hardware that is not: whatif, require."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import app
from harness.cli.screen import AsJson, devices_folder, fit, note, show_json, width
from harness.cli.screen import device as load_device

Candidates = Annotated[list[str], typer.Option("--candidate", help="May be repeated.")]
Run = Annotated[str, typer.Option(help="As in tg64, pp128, tg64 @ d4096.")]


@app.command(
    epilog="Example: edgewise whatif rpi5 --set memory_bandwidth=2x --set cores=+4xA76@2.4 "
    "--candidate mcsd:110m@int4"
)
def whatif(
    device: Annotated[str, typer.Argument(help="See `edgewise list devices`.")],
    candidate: Candidates,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="FACT=VALUE or FACT=2x; may be repeated.")
    ] = None,
    workload: Run = "tg64",
    plot: Annotated[Path | None, typer.Option(help="Folder for the tornado figures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Before, after and what bounds it now, if a device had other facts; and what each is worth."""
    from harness import forecast, whatif
    from harness import table as tables
    from harness.plot import tornado_figure

    known, here = fit(), load_device(device)
    there = whatif.changed(here, change or [])
    places = {device: here}
    title = f"{device} with {', '.join(change)}" if change else device
    places[title] = there
    rows = [
        replace(forecast.point(name, workload, place, fit=known), device=called)
        for name in candidate
        for called, place in places.items()
    ]
    worth = {}
    for name in candidate:
        spec, threads = forecast.settle(name, workload, there, known)
        worth[name] = whatif.elasticities(spec, there, threads, known)
    if as_json:
        show_json({"rows": rows, "worth": worth})
        return
    print(tables.terminal(rows, width()))
    for name, facts in worth.items():
        print(f"\n{name} on {title}, {workload}: one percent more of a fact changes")
        for fact in facts:
            joules = "" if fact.joules is None else f"   joules {fact.joules:+.2f} %"
            print(f"  {fact.fact:<18} speed {fact.speed:+.2f} %{joules}")
    if plot is not None:
        for name, facts in worth.items():
            safe = name.replace(":", "_").replace("@", "_")
            path = plot / f"whatif_{device}_{safe}"
            note(f"wrote {tornado_figure(facts, path, f'{name}, {workload}, {title}')}")


@app.command(
    epilog="Example: edgewise require --tokens-per-second 20 --candidate mcsd:500m@int4 "
    "--candidate attention:500m@int4 --workload 'tg64 @ d4096'"
)
def require(
    tokens_per_second: Annotated[float, typer.Option(help="What is to be reached.")],
    candidate: Candidates,
    like: Annotated[str, typer.Option(help="Device whose other facts stay as they are.")] = "rpi5",
    workload: Run = "tg64",
    as_json: AsJson = False,
) -> None:
    """The least bandwidth, compute and memory that reach a rate, for each algorithm."""
    from harness import forecast, whatif
    from harness.table import si, size

    known, device = fit(), load_device(like)
    found = {}
    for name in candidate:
        spec, threads = forecast.settle(name, workload, whatif.roomy(device), known)
        found[name] = whatif.needed(spec, device, threads, tokens_per_second, known)
    if as_json:
        show_json(found)
        return
    print(
        f"for {tokens_per_second:g} tokens/s of {workload}, other facts as of {like}; projected, "
        "at even odds:"
    )
    for name, needs in found.items():
        bus = "none is enough" if needs.bandwidth is None else si(needs.bandwidth, "B/s")
        clock, both = (
            "none is enough" if scale is None else f"x{scale:.3g}"
            for scale in (needs.clock_scale, needs.both_scale)
        )
        print(
            f"{name:<28} bus alone {bus}; clocks alone {clock}; both {both}; "
            f"memory {size(needs.memory_bytes)}"
        )
        print(f"  the rate is within x{needs.factor:.2f} of it with 90 %")
        for why in needs.notes:
            print(f"  {why}")


@app.command(epilog="Example: edgewise crossover --device rpi5 --size 500m --format int4")
def crossover(
    device: Annotated[
        list[str] | None, typer.Option(help="All by default; may be repeated.")
    ] = None,
    size: Annotated[str, typer.Option(help="Of both sides; see `edgewise list sizes`.")] = "500m",
    form: Annotated[
        list[str] | None, typer.Option("--format", help="f32 to ternary by default.")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Folder for the table and page.")] = None,
    as_json: AsJson = False,
) -> None:
    """From which context MCSD beats attention, and up to which active fraction `selective` beats
    dense, on each device."""
    from harness import crossings, crossover, store
    from targets import profile

    names = device or profile.names(devices_folder())
    places = [load_device(name) for name in names]
    found = crossover.crossovers(places, size, form or crossover.FORMATS, fit())
    if as_json:
        show_json(found)
        return
    print(crossings.markdown(found), end="")
    if write is not None:
        store.write_bytes(write / "crossover.csv", crossings.as_csv(found).encode())
        store.write_bytes(write / "crossover.md", crossings.markdown(found).encode())
        note(f"wrote {write}/crossover.csv, {write}/crossover.md")


@app.command("map", epilog="Example: edgewise map --tokens-per-second 10 --write results/codesign")
def codesign_map(
    device: Annotated[
        list[str] | None, typer.Option(help="All by default; may be repeated.")
    ] = None,
    tokens_per_second: Annotated[float, typer.Option(help="What a decode must reach.")] = 10.0,
    joules_per_token: Annotated[
        float | None, typer.Option(help="And what it may take at most.")
    ] = None,
    depth: Annotated[int, typer.Option(help="Context behind which it decodes.")] = 2048,
    memory: Annotated[
        list[str] | None, typer.Option(help="Of a panel, e.g. 7GiB; 3, 7, 28, 60 by default.")
    ] = None,
    like: Annotated[str, typer.Option(help="Device that is scaled between devices.")] = "rpi5",
    write: Annotated[Path | None, typer.Option(help="Folder for table, page and figure.")] = None,
    as_json: AsJson = False,
) -> None:
    """Over bandwidth and compute, which model in which format is best within a budget; on each
    device; and what hardware would change it."""
    from harness import advice, best_use, codesign, contenders, judge, store
    from harness.plot import codesign_figure
    from harness.sweep import DEFAULT, load
    from targets import profile

    budget = codesign.Budget(
        tokens_per_second=tokens_per_second, joules_per_token=joules_per_token, depth=depth
    )
    memories = [judge.parse_bytes(text) for text in memory or ("3GiB", "7GiB", "28GiB", "60GiB")]
    known, base = fit(), load_device(like)
    devices = [load_device(name) for name in device or profile.names(devices_folder())]
    found = [
        best_use.standing(suite, place, budget, known)
        for suite in contenders.suites()
        for place in devices
    ]
    if as_json:
        show_json(found)
        return
    command = (
        f"edgewise map --tokens-per-second {tokens_per_second:g} --depth {depth} --like {like}"
    )
    command += f" --joules-per-token {joules_per_token:g}" if joules_per_token else ""
    command += "".join(f" --memory {text}" for text in memory or ())
    command += "".join(f" --device {name}" for name in device or ())
    maps = [
        each
        for suite in contenders.suites()
        for each in codesign.maps(suite, memories, base, budget, known)
    ]
    page = advice.markdown(found, maps, budget, like, command)
    print(page, end="")
    if write is None:
        return
    store.write_bytes(write / "codesign.csv", advice.as_csv(found).encode())
    store.write_bytes(write / "README.md", page.encode())
    note(f"wrote {write}/codesign.csv, {write}/README.md")
    if maps:
        places = {one.place.device: one.place for one in found}
        figure = codesign_figure(
            maps, list(places.values()), write / "codesign",
            f"Best quality that decodes {budget} (projected)", load(DEFAULT).project.devices,
        )  # fmt: skip
        note(f"wrote {figure}")
