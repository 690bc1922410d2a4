"""Verbs on this machine and this installation: doctor, meter, list, verify, profile, gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import app
from harness.cli.screen import HERE, AsJson, Results, bars, devices_folder, note, show_json


@app.command(epilog="Example: edgewise doctor --write my_board.toml")
def doctor(
    fresh: Annotated[
        bool, typer.Option(help="Measure limits again, though recent ones exist.")
    ] = False,
    write: Annotated[
        Path | None, typer.Option(help="Write a device profile of this machine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Name this machine, measure its limits (under 30 s), say how quiet it is and what can be
    metered."""
    from harness import host, store
    from harness.doctor import device_toml
    from harness.doctor import doctor as examine
    from harness.table import si

    host.require_supported()
    note("measuring what this machine can read, copy and compute ...")
    report = examine(fresh=fresh, devices=devices_folder())
    if write is not None:
        store.write_bytes(write, device_toml(report).encode())
        note(f"wrote {write}; use it with: edgewise --devices {write.parent} ...")
    if as_json:
        show_json(report)
        return
    environment = report.environment
    print(f"host      {environment.host}: {environment.cpu}, {environment.cores} cores")
    print(f"device    {environment.device or 'none of the profiles; results say host'}")
    print(f"memory    {si(environment.memory_bytes, 'B')}")
    caches = (f"{name} {si(count, 'B')}" for name, count in environment.caches.items())
    print(f"caches    {', '.join(caches)}")
    print(f"governor  {environment.governor or 'not readable'}")
    for name, value in environment.limits.items():
        what, _, threads = name.rpartition(".")
        unit = {"clock_hz": "Hz"}.get(what, "B/s" if "bytes" in what else "op/s")
        who = f"{threads} thread(s)" if threads.isdigit() else threads
        label = what.removesuffix("_per_s").replace("_", " ")
        print(f"limit     {label:<20} {who:<12} {si(value, unit)}")
    for line in report.meters or ("none; energy is modelled",):
        print(f"meter     {line}")
    for line in report.noise or ("quiet",):
        print(f"noise     {line}")
    for line in report.warnings:
        print(f"warning   {line}")


@app.command(epilog="Example: edgewise meter --adb --seconds 60")
def meter(
    seconds: Annotated[float, typer.Option(min=0, help="How long to watch.")] = 10.0,
    adb: Annotated[bool, typer.Option("--adb", help="A phone's battery over adb.")] = False,
    serial: Annotated[str | None, typer.Option(help="Of the phone, where there are many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Joules that instruments of this machine, or of a phone, read while anything runs."""
    from harness import energy, metered, meters
    from harness.errors import NoMeter
    from harness.table import si

    here = [meters.android(serial)] if adb else [*energy.meters(), *meters.present()]
    if not here:
        raise NoMeter("no energy meter here; --adb reads the battery of a phone")
    found = metered.drawn(here, seconds)
    if as_json:
        show_json(found)
        return
    for one in found:
        told = one.reason
        if one.joules is not None and one.seconds:
            watts = si(one.joules / one.seconds, "W")
            told = f"{watts}, {si(one.joules, 'J')} in {one.seconds:.1f} s"
        print(f"{one.meter} ({one.method}): {told}")


KINDS = (
    "devices kernels mixers ffns formats transforms corpora engines groups sizes metrics candidates"
)


@app.command("list", epilog="Example: edgewise list devices")
def list_things(
    kind: Annotated[str, typer.Argument(help=f"One of: {KINDS.replace(' ', ', ')}")],
    as_json: AsJson = False,
) -> None:
    """What there is: names with a line each."""
    from harness.cli.catalogue import entries

    found = entries(kind, devices_folder())
    if as_json:
        show_json(found)
        return
    wide = max(map(len, found), default=0)
    for name, line in found.items():
        print(f"{name:<{wide}}  {line}")


CHECKED = ("attention:nano", "mcsd:nano", "attention:nano@int8", "mcsd:nano@int4")


@app.command(epilog="Example: edgewise verify matvec_int8 mcsd:nano@int8")
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Kernels and candidates; all kernels by default.")
    ] = None,
) -> None:
    """Compare kernels with their PyTorch references, and the engine with the PyTorch model."""
    from harness import candidates, plugins
    from harness import verify as checks
    from harness.make import make

    table = plugins.kernel_specs()
    for name in names or (*table, *CHECKED):
        if ":" in name or candidates.is_folder(name):
            worst, allowed = checks.agree(make(candidates.parse(name))), ""
        else:
            kernel = plugins.pick(table, name, "kernel")
            others = (kernel.settle(dict.fromkeys(kernel.example, side)) for side in (1, 33))
            worst = max(checks.verify(kernel, size) for size in (kernel.example, *others))
            allowed = f"  allowed {kernel.rtol:.0e}"
        print(f"{name:<20} error {worst:.1e}{allowed}")


@app.command(epilog="Example: edgewise profile mcsd:nano@int8")
def profile(
    candidate: Annotated[str, typer.Argument(help="MIXER[+FFN]:SIZE[@STEP[+STEP]]")],
    results: Results = HERE,
    depth: Annotated[int, typer.Option(min=0, help="Context depth of the decode.")] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Where a decode step spends its time: a flame graph, and each stage against the limit."""
    from harness import host
    from harness.profile import profile as examine
    from harness.profile import text

    folder = results / host.describe().host / "profile"
    report = examine(candidate, folder, depth=depth, threads=threads)
    if as_json:
        show_json(report)
    else:
        print(text(report))


@app.command(epilog="Example: edgewise gate --base HEAD~1 rmsnorm matvec_int8")
def gate(
    items: Annotated[list[str] | None, typer.Argument(help="What to time; all by default.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Commit to compare the working tree with.")
    ] = None,
) -> None:
    """Is the working tree slower than a base commit? Interleaved, with pass, fail, inconclusive."""
    from harness import gate as gates

    chosen = items or gates.items()
    with bars() as progress:
        task = progress.add_task("gate", total=None)
        report = gates.gate(
            base,
            chosen,
            progress=lambda text: progress.update(task, advance=1, description=text),
        )
    print(gates.table(report))
    if gates.failures(report):
        raise typer.Exit(1)
