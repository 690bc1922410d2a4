"""The look of every figure: sizes, colours, marks, units, and how it is written.

Colours are Okabe & Ito's, safe for colour-blind readers (https://jfly.uni-koeln.de/color/).
Filled marks are measured, hollow ones projected or modelled.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import evidence, store
from harness.frame import ordered
from harness.pareto import measured_first
from harness.records import Row
from harness.table import si

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5b4a3a")
BLACK, GREY = "#222222", "#8a8a8a"
SHAPES = "os^DvPX<>hp*8d"
AREAS = (18.0, 44.0, 80.0, 120.0)
WIDTH = 7.2  # inches: the text width of a two-column page
DOTS_PER_INCH = 200


SETTINGS: dict[Any, Any] = {  # matplotlib's own type of this changes between its versions
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "edgewise",
}


@dataclass(frozen=True, slots=True)
class Codes:
    """What stands for what: architecture -> colour, steps -> shape, size -> area."""

    colours: dict[str, str]
    shapes: dict[str, str]
    areas: dict[str, float]


@contextmanager
def paper() -> Iterator[None]:
    """Matplotlib's settings for these figures, and what they were before on leaving."""
    from matplotlib import rc_context  # noqa: PLC0415

    with rc_context(SETTINGS):
        yield


def new(width: float, height: float) -> Figure:
    """An empty figure that no window system knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write PATH.png and PATH.svg, each whole or not at all; returns the PNG."""
    for suffix in ("svg", "png"):
        out = io.BytesIO()
        # the same rows give the same bytes, so no date
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        figure.savefig(out, format=suffix, dpi=DOTS_PER_INCH, metadata=metadata)
        store.write_bytes(path.with_suffix(f".{suffix}"), out.getvalue())
    return path.with_suffix(".png")


def family(row: Row) -> str:
    """The architecture in a candidate's name: attention, mcsd+selective, ..."""
    return row.candidate.partition("@")[0].partition(":")[0]


def model(row: Row) -> str:
    """The size in a candidate's name: nano, micro, ..."""
    return row.candidate.partition("@")[0].partition(":")[2]


def steps(row: Row) -> str:
    """The compressions in a candidate's name, "float32" where there is none."""
    return row.candidate.partition("@")[2] or "float32"


def codes(rows: Sequence[Row]) -> Codes:
    """The same look for the same set of names, whatever the order of rows."""
    families = sorted({family(row) for row in rows})
    compressions = sorted({steps(row) for row in rows}, key=lambda name: (name != "float32", name))
    weights = {model(row): row.parameters for row in sorted(rows, key=lambda r: r.parameters)}
    sizes = sorted(weights, key=lambda name: (weights[name], name))
    return Codes(
        colours={name: PALETTE[i % len(PALETTE)] for i, name in enumerate(families)},
        shapes={name: SHAPES[i % len(SHAPES)] for i, name in enumerate(compressions)},
        areas={name: AREAS[min(i, len(AREAS) - 1)] for i, name in enumerate(sizes)},
    )


def fastest(rows: Iterable[Row]) -> list[Row]:
    """In table order, each candidate on each device and workload with its fastest threads."""
    best: dict[tuple[str, ...], tuple[float, Row]] = {}
    for row in ordered(measured_first(rows)):
        reading = evidence.read(row.seconds)
        place = (
            row.candidate,
            row.device,
            row.workload,
            row.engine,
            reading.mark if reading else "",
        )
        if reading and (place not in best or reading.value < best[place][0]):
            best[place] = (reading.value, row)
    return [row for _, row in best.values()]


def ticks(axis: Axis, unit: str, show: Callable[[float, str], str] = si) -> None:
    """Label a log axis at 1, 2 and 5 with prefixes: "200 us", "1 ms"."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    low, high = axis.get_view_interval()
    wide = low > 0 and high / low > 50
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(show(value, unit))))
    axis.set_minor_formatter(NullFormatter())


def short(text: str) -> str:
    """ "1.50 ms" -> "1.5 ms"; a tick needs no zeros to show its precision."""
    return re.sub(r"(\.\d*?)0+(?= |$)", r"\1", text).replace(". ", " ").rstrip(".")


def legend(figure: Figure, look: Codes, extra: Sequence[Line2D] = ()) -> None:
    """Below the panels, a column a meaning: colour, shape, size, then measured and projected."""
    groups = {"architecture": [mark(name, colour) for name, colour in look.colours.items()]}
    if len(look.shapes) > 1:
        shapes = look.shapes.items()
        groups["compression"] = [mark(name, GREY, shape) for name, shape in shapes]
    if len(look.areas) > 1:
        areas = look.areas.items()
        groups["size"] = [mark(name, GREY, area=area) for name, area in areas]
    groups["evidence"] = [
        mark("measured", BLACK),
        mark("projected, 90 % interval", BLACK, hollow=True),
        *extra,
    ]
    grouped_legend(figure, groups)


def grouped_legend(figure: Figure, groups: Mapping[str, Sequence[Line2D]]) -> None:
    """One legend under the panels whose columns begin with the name of what they explain."""
    deep = min(4, max(len(group) for group in groups.values()))
    cells: list[Line2D] = []
    headings = []
    for name, group in groups.items():
        for start in range(0, len(group), deep):
            headings.append(len(cells))
            chunk = list(group[start : start + deep])
            empty = [mark(" ", "none") for _ in range(deep - len(chunk))]
            cells += [mark(" " if start else name, "none"), *chunk, *empty]
    columns = len(cells) // (deep + 1)
    drawn = figure.legend(
        handles=cells,
        loc="outside lower center",
        ncols=columns,
        fontsize=7,
        columnspacing=1.2,
        handletextpad=0.3,
    )
    for index in headings:
        drawn.get_texts()[index].set_fontweight("bold")


def mark(
    name: str, colour: str, shape: str = "o", area: float = 36.0, hollow: bool = False
) -> Line2D:
    """A legend entry; hollow ones carry an interval bar."""
    from matplotlib.lines import Line2D  # noqa: PLC0415

    return Line2D(
        [],
        [],
        color=colour,
        marker=shape,
        markersize=area**0.5,
        markerfacecolor="white" if hollow else colour,
        linestyle="-" if hollow else "none",
        linewidth=0.8,
        label=name,
    )


def stroke(name: str) -> Line2D:
    """A legend entry of a thin line without marks."""
    from matplotlib.lines import Line2D  # noqa: PLC0415

    return Line2D([], [], color=BLACK, linewidth=0.8, label=name)
