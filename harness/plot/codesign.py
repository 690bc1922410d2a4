"""Maps -> figure: over bandwidth and compute, which model in which format to take, and devices."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness import contenders
from harness.codesign import KEY, Map, within
from harness.contenders import NO_EVIDENCE, WORDS, Contender
from harness.errors import BadInput
from harness.plot.style import BLACK, GREY, PALETTE, WIDTH, new, paper, save, short, ticks
from harness.scaling import Place
from harness.table import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

COLUMNS = 2
LIGHTEST = 0.8  # how far towards white the format of fewest bits of a model goes
AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))  # of a point


@paper()
def codesign_figure(
    maps: Sequence[Map], places: Sequence[Place], path: Path, title: str, named: Sequence[str] = ()
) -> Path:
    """A panel a map, with the devices that have its memory but not that of the suite's next.

    named: devices whose names come first where there is no room for all. Raises BadInput
    """
    if not maps:
        raise BadInput("no map to draw: nothing holds this budget anywhere")
    lines = -(-len(maps) // COLUMNS)
    figure = new(WIDTH, 0.5 + 2.75 * lines)
    grid = figure.subplots(lines, COLUMNS, squeeze=False, sharex=True, sharey=True)
    figure.suptitle(title, fontsize=9)
    colours = _colours(maps)
    order = sorted(places, key=lambda p: (p.device not in named, p.device))
    drawn = list(zip(grid.flat, maps, strict=False))
    for axes in list(grid.flat)[len(maps) :]:
        _key(axes)
    for axes, each in drawn:
        _regions(axes, each, colours)
        axes.set_title(f"{each.suite}: from {short(size(each.memory_bytes))}", loc="left")
    for line in grid:
        line[0].set_ylabel("multiply-adds reached, 4-bit weights")
    for column in grid.T:
        last = [axes for axes in column if axes.axison][-1]
        last.set_xlabel("bandwidth reached, from memory")
        last.tick_params(labelbottom=True)
    for axes, _ in drawn:
        ticks(axes.xaxis, "B/s")
        ticks(axes.yaxis, "/s")
    figure.canvas.draw()  # names are placed by the sizes that they have then
    for axes, each in drawn:
        inside = [p for p in order if _belongs(p, each, maps)]
        _names(axes, each, inside)
        _devices(axes, inside)
    return save(figure, path)


def _key(axes: Axes) -> None:
    """What is drawn, in words, where a panel is left over."""
    axes.set_axis_off()
    axes.text(
        0.02,
        0.95,
        textwrap.fill(KEY, 52),
        transform=axes.transAxes,
        va="top",
        fontsize=7,
        linespacing=1.5,
    )


def _colours(maps: Sequence[Map]) -> Mapping[tuple[str, str], tuple[float, ...]]:
    """Of every contender: its model's colour, the lighter the fewer its bits."""
    from matplotlib.colors import to_rgb  # noqa: PLC0415

    found: dict[tuple[str, str], tuple[float, ...]] = {}
    for suite in dict.fromkeys(each.suite for each in maps):
        field = next(each.field for each in maps if each.suite == suite)
        chosen = {int(i) for each in maps if each.suite == suite for i in np.unique(each.chosen)}
        taken = [field[i] for i in sorted(chosen) if i >= 0]
        for number, model in enumerate(dict.fromkeys(one.title for one in taken)):
            forms = [one for one in taken if one.title == model]
            for rank, one in enumerate(forms):
                white = 0.35 + (LIGHTEST - 0.35) * rank / max(1, len(forms) - 1)
                rgb = np.array(to_rgb(PALETTE[number % len(PALETTE)]))
                found[suite, one.name] = tuple((1 - white) * rgb + white)
    return found


def _regions(axes: Axes, each: Map, colours: Mapping[tuple[str, str], tuple[float, ...]]) -> None:
    image = np.ones((*each.chosen.shape, 3))
    for i in np.unique(each.chosen):
        if i >= 0:
            image[each.chosen == i] = colours[each.suite, each.field[i].name]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=False)
    axes.pcolormesh(_edges(each.bandwidth), _edges(each.compute), image, rasterized=True)
    if (each.chosen == NO_EVIDENCE).any():
        hatched = axes.contourf(
            each.bandwidth, each.compute, each.chosen == NO_EVIDENCE, levels=[0.5, 1.5],
            colors="none", hatches=["///"],
        )  # fmt: skip
        hatched.set(edgecolor="#cccccc", linewidth=0)


def _names(axes: Axes, each: Map, places: Sequence[Place]) -> None:
    """The name of each region where its text fits inside, off the devices if it can."""
    from scipy.ndimage import distance_transform_edt, minimum_filter  # noqa: PLC0415

    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    rows, columns = each.chosen.shape
    dots = np.zeros(each.chosen.shape, bool)
    for p in places:
        dots[
            np.abs(each.compute - p.compute).argmin(), np.abs(each.bandwidth - p.bandwidth).argmin()
        ] = True
    for which in np.unique(each.chosen).tolist():
        words = WORDS.get(which) or _words(which, each.field)
        text = axes.text(
            each.bandwidth[0], each.compute[0], words, ha="center", va="center", fontsize=6,
            color=GREY if which < 0 else BLACK, style="italic" if which < 0 else "normal",
        )  # fmt: skip
        box = text.get_window_extent(renderer)
        high = int(box.height / frame.height * rows) + 1
        wide = int(box.width / frame.width * columns) + 1
        region = each.chosen == which
        for inside in (region & ~dots, region):
            room = minimum_filter(inside, (high, wide), mode="constant")
            if room.any():
                depth = np.where(room, distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1], 0)
                row, column = np.unravel_index(int(depth.argmax()), depth.shape)
                text.set_position((each.bandwidth[column], each.compute[row]))
                break
        else:
            text.remove()


def _words(which: int, field: Sequence[Contender]) -> str:
    """Model and format, and other models of that format that are as good."""
    one = field[which]
    alike = [field[i] for i in contenders.alike(which, field)]
    others = [other.title for other in alike if other.form == one.form and other.title != one.title]
    return "\n".join([one.title, one.form, *(f"tied: {title}" for title in others)])


def _devices(axes: Axes, inside: Sequence[Place]) -> None:
    """A dot a device, and its name where it covers no other name and no dot."""
    axes.scatter(
        [p.bandwidth for p in inside], [p.compute for p in inside], s=5, color=BLACK,
        edgecolor="white", linewidth=0.3, zorder=5,
    )  # fmt: skip
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    taken = [text.get_window_extent(renderer) for text in axes.texts]
    dots = [axes.transData.transform((p.bandwidth, p.compute)) for p in inside]
    for p in inside:
        for right, up in AROUND:
            text = axes.annotate(
                p.device.replace("_", " "), (p.bandwidth, p.compute), (3 * right, 3 * up),
                textcoords="offset points", fontsize=4.5, zorder=6,
                ha={1: "left", 0: "center", -1: "right"}[right],
                va={1: "bottom", 0: "center", -1: "top"}[up],
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            if _free(box, frame, taken, dots):
                taken.append(box)
                break
            text.remove()


def _free(box: Bbox, frame: Bbox, taken: Sequence[Bbox], dots: Sequence[np.ndarray]) -> bool:
    within = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    return (
        within
        and not any(box.overlaps(other) for other in taken)
        and not any(box.contains(*dot) for dot in dots)
    )


def _belongs(place: Place, each: Map, maps: Sequence[Map]) -> bool:
    """Whether a device lies within this map and has its memory, not that of the suite's next."""
    steps = [other.memory_bytes for other in maps if other.suite == each.suite]
    larger = min((step for step in steps if step > each.memory_bytes), default=np.inf)
    inside = within(place.bandwidth, each.bandwidth) and within(place.compute, each.compute)
    return bool(inside and each.memory_bytes <= 1.001 * place.memory_bytes < larger)


def _edges(middles: np.ndarray) -> np.ndarray:
    """Between neighbours, evenly on a logarithm."""
    step = np.sqrt(middles[1] / middles[0])
    return np.append(middles / step, middles[-1] * step)
