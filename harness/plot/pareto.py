"""Rows -> figure: quality against latency, with the Pareto front of each device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import evidence, plugins
from harness.errors import BadInput
from harness.pareto import pareto
from harness.plot.style import (
    BLACK,
    WIDTH,
    Codes,
    codes,
    family,
    fastest,
    legend,
    model,
    new,
    paper,
    save,
    steps,
    stroke,
    ticks,
)
from harness.records import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@paper()
def pareto_figure(
    rows: Iterable[Row], path: Path, workload: str = "tg64", devices: Sequence[str] = ()
) -> Path:
    """Bits per byte against time per token, a panel a device, with its Pareto front.

    Each candidate stands with its fastest thread count. devices: at most 6 panels, by default
    the measured ones and then the first projected ones. Raises BadInput when nothing can be drawn.
    """
    metrics = plugins.metrics()
    chosen = [row for row in fastest(rows) if row.workload == workload and _score(row) is not None]
    names = list(devices or dict.fromkeys(row.device for row in chosen))[:6]
    chosen = [row for row in chosen if row.device in names]
    if not chosen:
        raise BadInput(f"no row of {workload} has both a time and bits per byte to draw")
    front = pareto(chosen, [metrics["seconds_per_token"], metrics["bits_per_byte"]])
    look = codes(chosen)
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    lines = -(-len(names) // columns)
    figure = new(WIDTH, 0.4 + 2.2 * lines)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        here = [row for row in chosen if row.device == name]
        _panel(axes, here, [row for row in front if row.device == name], look)
        kinds = sorted({"projected" if r.environment is None else "measured" for r in here})
        axes.set_title(f"{name} ({' and '.join(kinds) or 'no rows'})", loc="left")
    for index, axes in enumerate(grid.flat):
        axes.set_visible(index < len(names))
        if index + columns >= len(names):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(f"time per token ({workload}, CPU)")
    for line in grid:
        line[0].set_ylabel("bits per byte (less is better)")
    legend(figure, look, [stroke("Pareto front")])
    return save(figure, path)


def _panel(axes: Axes, rows: Sequence[Row], front: Sequence[Row], look: Codes) -> None:
    """One device: its candidates, those off the front faded, and the front as steps."""
    best = {id(row) for row in front}
    for row in rows:
        reading, value = evidence.per(evidence.read(row.seconds), row.tokens), _score(row)
        if reading is None or value is None:
            continue
        colour, alpha = look.colours[family(row)], 1.0 if id(row) in best else 0.4
        ends = [reading.low, reading.high]
        axes.plot(ends, [value, value], color=colour, lw=0.8, alpha=0.6 * alpha, zorder=2)
        axes.scatter(
            [reading.value],
            [value],
            s=look.areas[model(row)],
            marker=look.shapes[steps(row)],
            facecolor="white" if reading.mark == "P" else colour,
            edgecolor=colour,
            linewidth=0.9,
            alpha=alpha,
            zorder=4 if id(row) in best else 3,
        )
    speed = plugins.metrics()["seconds_per_token"].value
    points = [(speed(row) or 0.0, _score(row) or 0.0) for row in front]
    if points:
        axes.step(*zip(*points, strict=True), where="post", color=BLACK, lw=0.7, zorder=1.5)
    axes.set_xscale("log")
    ticks(axes.xaxis, "s")


def _score(row: Row) -> float | None:
    return plugins.metrics()["bits_per_byte"].value(row)
