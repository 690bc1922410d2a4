"""What verbs share: folders, output, progress bars."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from harness.records import Row
    from harness.roofline import Fit
    from targets.profile import Device

Results = Annotated[Path, typer.Option(help="Folder of results; rows are below it, by host.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON on stdout.")]
HERE = Path("results")


def width() -> int:
    return min(140, max(80, shutil.get_terminal_size((100, 24)).columns))


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show_json(value: object) -> None:
    print(json.dumps(value, indent=2, default=_plain, allow_nan=False))


def _plain(value: object) -> object:
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)  # type: ignore[call-overload,no-any-return]
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple | set | frozenset) else str(value)


def devices_folder() -> Path | None:
    folder = os.environ.get("EDGEWISE_DEVICES")
    return Path(folder) if folder else None


def device(name: str) -> Device:
    from targets import profile

    return profile.load(name, devices_folder())


def fit() -> Fit:
    """What projects, with what `calibrate --device` kept beside the user's own profiles."""
    from harness import correct, roofline

    return correct.informed(roofline.load(), devices_folder())


def stored(folder: Path) -> list[Row]:
    """The newest row of every point below a folder; broken files are named and passed over."""
    from harness import store
    from harness.errors import BadInput

    if not folder.exists():
        raise BadInput(f"{folder} does not exist; `edgewise sweep` makes it, or name it: --results")
    rows, problems = store.read(folder)
    for problem in problems:
        note(f"edgewise: passed over: {problem}")
    if not rows:
        raise BadInput(f"no rows below {folder}; `edgewise sweep` measures some")
    here = platform.node()
    # "host" is the machine at hand; another one without a profile goes by its own name
    return [
        replace(row, device=row.environment.host)
        if row.device == "host" and row.environment and row.environment.host != here
        else row
        for row in store.latest(rows)
    ]


def with_forecasts(rows: list[Row], names: list[str] | tuple[str, ...]) -> list[Row]:
    """Measured rows, and projections of the same candidates to the named devices."""
    from harness import forecast

    return rows + forecast.rows(rows, [device(name) for name in names], fit())


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress bars with time left, on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        yield progress
