"""Rows of a sweep -> what is shown and written at its end: tables, figures, answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from harness import (
    answer,
    decide,
    evidence,
    gate,
    judge,
    overview,
    plot,
    plugins,
    store,
    table,
)
from harness import publish as publishing
from harness.cli.screen import note, width, with_forecasts
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.records import Row
    from harness.sweep import Sweep

SHOWN = ("host", "rpi5", "oneplus13_sd8elite", "mac_mini_m4")  # panels of the quality figure
WHOLE = ("*:nano@int8", "*:110m@int4")  # candidates on the roofline
EXAMPLE = "rpi5"  # the device of the question that a sweep ends with
QUESTION = judge.Limits(
    min_tokens_per_second=1000.0, max_memory_bytes=2 * 2**20, max_joules_per_token=0.003
)
ASKED = (
    f"edgewise recommend --device {EXAMPLE} --min-tokens-per-second 1000 --max-memory 2MiB "
    "--max-joules-per-token 0.003"
)


def summarise(rows: Sequence[Row], sweep: Sweep, folder: Path, command: str) -> None:
    """Print the table and an answer, write tables and figures."""
    everything = with_forecasts(list(rows), sweep.project.devices)
    print(table.terminal(rows, width()))
    if any(row.device == EXAMPLE and row.depth == 0 for row in everything):
        print(f"\n$ {ASKED}")
        print(answer.text(decide.recommend(everything, EXAMPLE, QUESTION), width(), most=6))
    quick = any(row.quick for row in rows)
    if not quick:
        for path in publishing.publish(everything, folder, command):
            note(f"wrote {path}")
    for path in figures(everything, folder / "figures"):
        note(f"wrote {path}")
    note(f"rows: {folder / 'rows'}; raw timings: {folder / 'pyperf'}")


def figures(rows: Sequence[Row], folder: Path, kernels: bool = False) -> list[Path]:
    """Every figure these rows allow; a figure that lacks its rows is named and left out.

    kernels: time every kernel now, for the roofline (a minute the first time)
    """
    hosts = sorted({row.device for row in rows if row.environment})
    names = list(dict.fromkeys([*hosts, *SHOWN]))
    present = {row.device for row in rows}
    devices = [name for name in names if name in present][:4]
    scored = [row for row in rows if row.quality]
    first = next((row.environment.host for row in rows if row.environment), "")
    here = [row for row in rows if row.environment and row.environment.host == first]
    deep = [row for row in rows if fnmatchcase(row.candidate, "*:110m@int4")]
    makers: tuple[Callable[[], Path], ...] = (
        lambda: plot.pareto_figure(scored, folder / "quality_latency.png", "tg64", devices),
        lambda: plot.depth_figure(deep, folder / "depth.png", hosts[0] if hosts else "host"),
        lambda: plot.energy_figure(
            [row for row in scored if row.device in devices], folder / "energy.png"
        ),
        lambda: plot.roofline_figure(
            [*_points(here), *(_kernels() if kernels else ())],
            _limits(here),
            folder / "roofline.png",
            1,
            hosts[0],
        ),
    )
    made = []
    for make in makers:
        try:
            made.append(make())
        except (HarnessError, IndexError) as error:
            note(f"edgewise: a figure was left out: {error}")
    return made


def publish(rows: Sequence[Row], sweep: Sweep, folder: Path, readme: Path | None) -> list[Path]:
    """Tables and figures of rows that were measured in full. Raises BadRow on quick ones."""
    store.refuse_quick(rows)
    everything = with_forecasts(list(rows), sweep.project.devices)
    paths = publishing.publish(everything, folder, "edgewise sweep && edgewise publish")
    paths += figures(everything, folder / "figures", kernels=True)
    if readme is not None:
        paths.append(publishing.fill(readme, _blocks(everything, folder)))
    return paths


def _blocks(rows: Sequence[Row], folder: Path) -> dict[str, str]:
    """The generated parts of the front page."""
    host = next(row.device for row in rows if row.environment)
    shown = [host, *SHOWN[1:]]
    question = answer.text(decide.recommend(rows, EXAMPLE, QUESTION), 96, most=5)
    return {
        "table": overview.markdown(rows, shown),
        "figure": f"![Quality against time per token, with the Pareto front of each device]"
        f"({folder.as_posix()}/figures/quality_latency.png)",
        "answer": f"```console\n$ {ASKED}\n{question.rstrip()}\n```",
    }


def _points(rows: Sequence[Row]) -> Iterable[plot.Point]:
    """Whole steps of a few plain candidates, at depth 0: enough to read, few enough to label."""
    for row in rows:
        if not any(fnmatchcase(row.candidate, pattern) for pattern in WHOLE):
            continue
        reading = evidence.read(row.seconds)
        if row.environment is None or reading is None or row.threads != 1 or row.depth:
            continue
        steps = row.tokens if row.phase == "decode" else 1
        form = set(row.candidate.partition("@")[2].split("+"))
        yield plot.Point(
            name=f"{row.candidate} {row.workload}",
            operations=row.operations,
            bytes=row.weight_bytes + row.state_bytes,
            seconds=reading.value / steps,
            arithmetic="int8" if {"int8", "int4"} & form else "float32",
        )


def _kernels() -> Iterable[plot.Point]:
    """Every kernel by itself, in caches, at a size that takes some microseconds."""
    table = plugins.kernel_specs()
    forms = {form.kernel: form.arithmetic for form in plugins.formats().values()}
    for name, (sizes, seconds) in gate.kernel_times().items():
        cost = table[name].cost(sizes)
        yield plot.Point(
            name=name,
            operations=cost.operations,
            bytes=cost.moved_bytes,
            seconds=seconds,
            arithmetic=forms.get(name.replace("matvec", "matmul", name.startswith("matvec")))
            or ("int8" if name.endswith("int8") else "float32"),
        )


def _limits(rows: Iterable[Row]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        if row.environment:
            found.update(row.environment.limits)
    return found
