"""Curves -> figure: something against a position, a distance or a difficulty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.plot.style import GREY, PALETTE, WIDTH, new, paper, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points (x, y, low, high) of one name; `group` gives the colour, `kind` the dash."""

    name: str
    group: str
    kind: str
    points: Sequence[tuple[float, float, float, float]]


@paper()
def curves_figure(
    panels: Mapping[str, Sequence[Curve]],
    path: Path,
    *,
    x: str,
    y: str,
    logarithmic: bool = False,
    trained: Mapping[str, float] | None = None,
    share: bool = False,
) -> Path:
    """A panel a title, a line a curve with its band over seeds.

    trained: by panel, how far training went; what lies beyond is shaded. share: y is from 0 to 1.
    Raises BadInput without any curve.
    """
    drawn = {title: curves for title, curves in panels.items() if curves}
    every = [curve for curves in drawn.values() for curve in curves]
    if not every:
        raise BadInput(f"there is no curve of {y} against {x} to draw")
    groups = list(dict.fromkeys(curve.group for curve in every))
    kinds = list(dict.fromkeys(curve.kind for curve in every))
    columns = min(3, len(drawn))
    lines = -(-len(drawn) // columns)
    figure = new(WIDTH if columns > 1 else 0.75 * WIDTH, 0.8 + 2.4 * lines)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    handles = {}
    for axes, (title, curves) in zip(grid.flat, drawn.items(), strict=False):
        for curve in curves:
            colour = PALETTE[groups.index(curve.group) % len(PALETTE)]
            dash = DASHES[kinds.index(curve.kind) % len(DASHES)]
            xs, ys, low, high = zip(*curve.points, strict=True)
            handles[curve.name] = axes.plot(xs, ys, color=colour, ls=dash, lw=1.2)[0]
            axes.fill_between(xs, low, high, color=colour, alpha=0.15, lw=0)
            if len(xs) <= 12:
                axes.plot(xs, ys, "o", color=colour, ms=2.5)
        if logarithmic:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if trained and (begin := trained.get(title, math.inf)) < axes.get_xlim()[1]:
            _shade(axes, begin)
        if share:
            axes.set_ylim(0, 1.03)
        if title:
            axes.set_title(title, loc="left")
        axes.set_xlabel(x)
    for index, axes in enumerate(grid.flat):
        axes.set_visible(index < len(drawn))
    for line in grid:
        line[0].set_ylabel(y)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(4, len(handles)),
        fontsize=7,
    )
    return save(figure, path)


def _shade(axes: Axes, begin: float) -> None:
    end = axes.get_xlim()[1]
    axes.axvspan(begin, end, color=GREY, alpha=0.1, lw=0)
    axes.set_xlim(right=end)
    axes.text(
        end,
        0.99,
        "beyond the trained window ",
        transform=axes.get_xaxis_transform(),
        fontsize=6,
        color="#666666",
        ha="right",
        va="top",
    )
