"""Points + a host's limits -> figure: its roofline with kernels or candidates on it.

Williams, Waterman & Patterson 2009: attainable operations/s = min(peak, intensity x bandwidth).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import labels
from harness.errors import BadInput
from harness.plot.style import GREY, PALETTE, WIDTH, mark, new, paper, save, short
from harness.table import si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

SLOPES = {"read_bytes_per_s": "memory", "cache_read_bytes_per_s": "last-level cache"}
PEAKS = {"float32_ops_per_s": "float32 peak", "int8_ops_per_s": "int8 peak"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One kernel or candidate: what a call does, moves and takes. arithmetic: its peak."""

    name: str
    operations: float
    bytes: float
    seconds: float
    arithmetic: str = "float32"


@paper()
def roofline_figure(
    points: Sequence[Point],
    limits: Mapping[str, float],
    path: Path,
    threads: int = 1,
    host: str = "this host",
) -> Path:
    """Measured operations/s against operations per byte, under the limits `doctor` measured.

    limits: `read_bytes_per_s.THREADS`, `float32_ops_per_s.THREADS`, ... as in an environment.
    Raises BadInput without a bandwidth, a peak and a point.
    """
    slopes = {SLOPES[k]: v for k in SLOPES if (v := limits.get(f"{k}.{threads}"))}
    peaks = {PEAKS[k]: v for k in PEAKS if (v := limits.get(f"{k}.{threads}"))}
    usable = [p for p in points if min(p.operations, p.bytes, p.seconds) > 0]
    if not (slopes and peaks and usable):
        raise BadInput(
            f"a roofline needs points, a read bandwidth and a peak for {threads} threads; "
            f"found {len(usable)} points, limits {', '.join(sorted(limits)) or 'none'}"
        )
    figure = new(WIDTH, 3.9)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    spots = [(p.operations / p.bytes, p.operations / p.seconds) for p in usable]
    ridge = max(peaks.values()) / min(slopes.values())
    left = min([x for x, _ in spots]) / 2
    right = max(ridge * 30, max(x for x, _ in spots) * 3)
    axes.set_xlim(left, right)
    axes.set_ylim(
        min([y for _, y in spots] + [left * min(slopes.values())]) / 2, max(peaks.values()) * 2.2
    )
    roofs = _roofs(axes, slopes, peaks, left, right)
    kinds = list(dict.fromkeys(point.arithmetic for point in usable))
    colours = dict(zip(sorted(kinds), PALETTE, strict=False))
    for point, (x, y) in zip(usable, spots, strict=True):
        axes.plot(x, y, "o", ms=4, color=colours[point.arithmetic], zorder=4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: short(si(value, "op/s")))
    axes.set_xlabel("operations per byte moved")
    axes.set_ylabel("operations per second")
    marks = [mark(f"{name} arithmetic", colour, area=20) for name, colour in colours.items()]
    figure.legend(handles=marks, loc="outside lower right", ncols=len(marks), fontsize=7)
    plural = "s" if threads > 1 else ""
    axes.set_title(f"roofline of {host}, {threads} thread{plural} (all measured)", loc="left")
    _name(figure, axes, [p.name for p in usable], spots, roofs)
    return save(figure, path)


def _roofs(
    axes: Axes,
    slopes: Mapping[str, float],
    peaks: Mapping[str, float],
    left: float,
    right: float,
) -> list[tuple[float, float]]:
    """Draw and name the limits; returns places along them that other labels should avoid."""
    top, fastest = max(peaks.values()), max(slopes.values())
    along = []
    styles = ("-", (0, (4, 2)), (0, (1, 1.5)))
    for style, (name, bandwidth) in zip(styles, slopes.items(), strict=False):
        end = min(top / bandwidth, right)
        axes.plot([left, end], [left * bandwidth, end * bandwidth], color=GREY, lw=1, ls=style)
        side = "right" if bandwidth == fastest and len(slopes) > 1 else "left"
        text = f"{name} {si(bandwidth, 'B/s')}"
        axes.text(end, top * 1.08, text, fontsize=7, color="#555555", ha=side)
        along += [(x, x * bandwidth) for x in _between(left, end)]
    for style, (name, peak) in zip(styles, peaks.items(), strict=False):
        start = peak / fastest
        axes.plot([start, right], [peak, peak], color=GREY, lw=1, ls=style)
        text = f"{name} {si(peak, 'op/s')}"
        axes.text(right, peak * 1.06, text, fontsize=7, color="#555555", ha="right")
        along += [(x, peak) for x in _between(start, right)]
    return along


def _between(start: float, end: float, count: int = 160) -> list[float]:
    return [start * (end / start) ** (i / (count - 1)) for i in range(count)]


def _pair(pixels: NDArray[Any]) -> labels.Point:
    return float(pixels[0]), float(pixels[1])


def _name(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    spots: Sequence[tuple[float, float]],
    roofs: Sequence[tuple[float, float]],
) -> None:
    """Write each name beside its point where it covers nothing, with a line if it is far."""
    figure.draw_without_rendering()  # the layout must be known before pixels mean anything
    figure.set_layout_engine("none")
    to_pixels = axes.transData.transform
    anchors = [_pair(to_pixels(spot)) for spot in spots]
    texts = [axes.text(0, 0, name, fontsize=7, va="bottom") for name in names]
    extents = [text.get_window_extent() for text in texts]
    sizes = [(extent.width + 2, extent.height) for extent in extents]
    lines = [_pair(to_pixels(place)) for place in roofs]
    taken = [(x - 1.5, y - 1.5, x + 1.5, y + 1.5) for x, y in lines]
    for text in axes.texts[: -len(texts)]:
        extent = text.get_window_extent()
        taken.append((extent.x0, extent.y0, extent.x1, extent.y1))
    box = axes.get_window_extent()
    radius = 4.5 * figure.dpi / 72
    placed = labels.beside(
        anchors,
        sizes,
        (box.x0, box.y0, box.x1, box.y1),
        taken,
        radius,
    )
    to_data = axes.transData.inverted().transform
    for text, anchor, spot, place in zip(texts, anchors, spots, placed, strict=True):
        x, y = map(float, to_data((place[0] + 1, place[1])))
        text.set_position((x, y))
        near = labels.touch(place, (anchor[0], anchor[1]))
        if math.dist(near, anchor) > labels.NEAR * 0.9 * radius:
            end = to_data(near)
            axes.plot([spot[0], end[0]], [spot[1], end[1]], color=GREY, lw=0.4)
