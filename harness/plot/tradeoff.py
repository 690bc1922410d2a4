"""Spots -> figure: quality against what it costs, with the front of each side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import BadInput
from harness.plot.style import (
    BLACK,
    GREY,
    PALETTE,
    SHAPES,
    WIDTH,
    grouped_legend,
    mark,
    new,
    paper,
    save,
    short,
    stroke,
    ticks,
)
from harness.table import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
PLAIN = "training"  # the step of what was trained and nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A cost x and a quality y, each as (value, low, high); side: its colour, step: its shape."""

    x: tuple[float, float, float]
    y: tuple[float, float, float]
    side: str
    step: str
    projected: bool = False


@paper()
def tradeoff_figure(
    panels: Mapping[str, Sequence[Spot]],
    path: Path,
    *,
    cost: str,
    quality: str,
    unit: Literal["B", "s", "J"],
    better: float = 1.0,
) -> Path:
    """Quality against cost, a panel a title, and under the spots of each side its front.

    better: 1 where less quality number is better, else -1. Raises BadInput without any spot.
    """
    every = [spot for spots in panels.values() for spot in spots]
    if not every:
        raise BadInput(f"nothing has both {quality} and {cost} to draw")
    sides = list(dict.fromkeys(spot.side for spot in every))
    steps = sorted({spot.step for spot in every}, key=lambda name: (name != PLAIN, name))
    colours = {side: PALETTE[i % len(PALETTE)] for i, side in enumerate(sides)}
    shapes = {step: SHAPES[i % len(SHAPES)] for i, step in enumerate(steps)}
    drawn = {title: spots for title, spots in panels.items() if spots}
    columns = min(COLUMNS, len(drawn))
    lines = -(-len(drawn) // columns)
    wide = WIDTH if columns > 1 else 0.75 * WIDTH
    figure = new(wide, 0.9 + (2.3 if columns > 1 else 3.0) * lines)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, (title, spots) in zip(grid.flat, drawn.items(), strict=False):
        _panel(axes, spots, colours, shapes, better)
        axes.set_xscale("log")
        if unit == "B":
            _binary_ticks(axes)
        else:
            ticks(axes.xaxis, unit)
        if title:
            axes.set_title(title, loc="left")
        axes.set_xlabel(cost)
    for index, axes in enumerate(grid.flat):
        axes.set_visible(index < len(drawn))
    for line in grid:
        line[0].set_ylabel(quality)
    legend = {"side": [mark(name, colour) for name, colour in colours.items()]}
    legend["after"] = [mark(name, GREY, shape) for name, shape in shapes.items()]
    evidence = [stroke("front of a side")]
    if any(spot.projected for spot in every):
        evidence.append(mark("cost projected, 90 % interval", BLACK, hollow=True))
    legend["evidence"] = evidence
    grouped_legend(figure, legend)
    return save(figure, path)


def _panel(
    axes: Axes,
    spots: Sequence[Spot],
    colours: Mapping[str, str],
    shapes: Mapping[str, str],
    better: float,
) -> None:
    for side, colour in colours.items():
        mine = [spot for spot in spots if spot.side == side]
        best = front(mine, better)
        known = set(map(id, best))
        for spot in mine:
            on = id(spot) in known
            alpha = 1.0 if on else 0.45
            axes.plot([spot.x[0]] * 2, spot.y[1:], color=colour, lw=0.8, alpha=alpha, zorder=2)
            if spot.projected:
                axes.plot(spot.x[1:], [spot.y[0]] * 2, color=colour, lw=0.5, alpha=0.25, zorder=1)
            axes.scatter(
                [spot.x[0]],
                [spot.y[0]],
                s=24,
                marker=shapes[spot.step],
                facecolor="white" if spot.projected else colour,
                edgecolor=colour,
                linewidth=0.9,
                alpha=alpha,
                zorder=4 if on else 3,
            )
        if len(best) > 1:
            places = [(spot.x[0], spot.y[0]) for spot in best]
            axes.step(*zip(*places, strict=True), where="post", color=colour, lw=0.8, zorder=1.5)


def front(spots: Sequence[Spot], better: float) -> list[Spot]:
    """The spots that none of at most their cost beats."""
    kept: list[Spot] = []
    for spot in sorted(spots, key=lambda s: (s.x[0], better * s.y[0])):
        if not kept or better * spot.y[0] < better * kept[-1].y[0]:
            kept.append(spot)
    return kept


def _binary_ticks(axes: Axes) -> None:
    """Powers of two, and halfway between them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    low, high = axes.get_xlim()
    subs = (1.0,) if high / low > 16 else (1.0, 1.5)
    axes.xaxis.set_major_locator(LogLocator(base=2, subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(size(value))))
    axes.xaxis.set_minor_locator(NullLocator())
