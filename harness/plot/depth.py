"""Rows -> figure: latency and memory of decoding against context depth."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness import evidence, labels
from harness.errors import BadInput
from harness.evidence import Reading
from harness.frame import ordered
from harness.pareto import measured_first
from harness.plot.style import GREY, WIDTH, codes, family, new, paper, save, steps
from harness.records import Row
from harness.table import si, size, threads_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 8  # lines that can still be told apart
DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
BEYOND = "beyond trained context"


@paper()
def depth_figure(rows: Iterable[Row], path: Path, device: str = "host", threads: int = 1) -> Path:
    """Time per token and resident memory as the context grows, a line a candidate.

    Raises BadInput when there are fewer than two depths, or more than 8 candidates.
    """
    found: dict[str, dict[int, Row]] = {}
    for row in ordered(measured_first(rows)):
        wanted = row.device == device and row.threads == threads and row.phase == "decode"
        if wanted and evidence.read(row.seconds) is not None:
            found.setdefault(row.candidate, {})[row.depth] = row
    found = {name: dict(sorted(line.items())) for name, line in found.items() if len(line) > 1}
    if not found:
        raise BadInput(f"no candidate has decode rows at two depths on {device}, {threads} threads")
    if len(found) > MOST:
        raise BadInput(f"{len(found)} candidates in one figure of depths; choose at most {MOST}")
    every = [row for line in found.values() for row in line.values()]
    look = codes(every)
    dashes = {name: DASHES[i % len(DASHES)] for i, name in enumerate(look.shapes)}
    figure = new(WIDTH, 2.9)
    left, right = figure.subplots(1, 2, sharex=True)
    for axes, what in ((left, "seconds"), (right, "resident")):
        ends = {}
        for name, line in found.items():
            first = next(iter(line.values()))
            colour, dash = look.colours[family(first)], dashes[steps(first)]
            points = {d: r for d, row in line.items() if (r := _reading(row, what)) is not None}
            depths, values = list(points), [r.value for r in points.values()]
            axes.plot(depths, values, color=colour, ls=dash, lw=1.3)
            for depth, reading in points.items():
                axes.plot([depth, depth], [reading.low, reading.high], color=colour, lw=0.8)
                axes.plot(
                    depth,
                    reading.value,
                    "o",
                    ms=4,
                    color=colour,
                    mfc="white" if reading.mark == "P" else colour,
                )
            if values:
                ends[name] = (depths[-1], values[-1], colour)
        last = max(row.depth for row in every)
        axes.set_xlim(-0.03 * last, 1.03 * last)
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        _end_labels(axes, ends)
        _shade(axes, every)
        axes.set_xticks(_spaced(sorted({row.depth for row in every})))
        axes.set_xlabel("context depth (tokens)")
    kind = "measured" if any(row.environment for row in every) else "projected"
    where = f"{device}, {threads_text(threads)}"
    left.set_title(f"time per token ({where}, {kind}, CPU)", loc="left")
    unit = 10.0 ** (3 * math.floor(math.log10(left.get_ylim()[1]) / 3))
    left.yaxis.set_major_formatter(lambda value, _: f"{value / unit:g}")
    left.set_ylabel(si(unit, "s").split()[1])
    right.set_title("resident memory (weights, KV cache or state, scratch)", loc="left")
    unit_bytes = 1024.0 ** math.floor(math.log(right.get_ylim()[1], 1024))
    _binary_ticks(right, unit_bytes)
    right.set_ylabel(size(unit_bytes).split()[1])
    return save(figure, path)


def _reading(row: Row, what: str) -> Reading | None:
    if what == "seconds":
        return evidence.per(evidence.read(row.seconds), row.tokens)
    return evidence.read(row.resident)


def _end_labels(axes: Axes, ends: dict[str, tuple[int, float, str]]) -> None:
    """Name each line at its right end, pushed apart where lines end close together."""
    bottom, top = axes.get_ylim()
    gap = (top - bottom) * 0.062
    heights = labels.apart([value for _, value, _ in ends.values()], gap)
    for (name, (depth, value, colour)), height in zip(ends.items(), heights, strict=True):
        axes.annotate(
            name,
            (depth, value),
            xytext=(1.05, (height - bottom) / (top - bottom)),
            textcoords="axes fraction",
            color=colour,
            fontsize=7,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.4, "shrinkA": 0, "shrinkB": 3},
            annotation_clip=False,
        )


def _shade(axes: Axes, rows: Iterable[Row]) -> None:
    """Grey out the depths that no candidate was trained for."""
    flagged = {row.depth: False for row in rows}
    for row in rows:
        reading = evidence.read(row.seconds)
        flagged[row.depth] |= bool(reading and any(BEYOND in flag for flag in reading.flags))
    beyond = [depth for depth, flag in flagged.items() if flag]
    if not beyond:
        return
    end = axes.get_xlim()[1]
    start = min(beyond) - 0.02 * end
    axes.axvspan(start, end, color=GREY, alpha=0.1, lw=0)
    axes.text(
        end,
        0.985,
        f"{BEYOND} ",
        transform=axes.get_xaxis_transform(),
        fontsize=6,
        color="#666666",
        ha="right",
        va="top",
    )


def _spaced(depths: list[int]) -> list[int]:
    """The depths whose labels do not touch, the last one always."""
    kept: list[int] = []
    for depth in reversed(depths):
        if not kept or kept[-1] - depth >= depths[-1] / 8:
            kept.append(depth)
    return kept[::-1]


def _binary_ticks(axes: Axes, unit: float) -> None:
    """Round numbers of `unit` bytes, at most six."""
    top = axes.get_ylim()[1] / unit
    step = next(s for s in (0.25, 0.5, 1, 2, 4, 5, 10, 20, 50, 100, 200, 500) if top / s <= 6)
    places = [n * step for n in range(int(top / step) + 1)]
    axes.set_yticks([place * unit for place in places], [f"{place:g}" for place in places])
