"""Rows -> a table for people: in the terminal or in Markdown, projections marked with "~"."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from harness import evidence, frame
from harness.evidence import Reading
from harness.metrics import fraction_of_limit
from harness.records import Projected, Row

if TYPE_CHECKING:
    from rich.table import Table

CPU_ONLY = "All figures are of CPU execution; a GPU or NPU of the same device is not considered."
LEGEND = (
    "kind: of time, energy, memory: M measured, P projected, F failed; "
    "~ projected, with its 90 % interval, sustained unless a note says burst; "
    "measured: median with its 95 % interval; "
    "of limit: of memory bandwidth (decode; cache: of that of the last-level cache, which smaller "
    "caches exceed) or of peak arithmetic (prefill, train); of a projection what binds it"
)
PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
WIDE = 120  # columns that hold a cell with its interval on one line


@dataclass(frozen=True, slots=True)
class Column:
    """One column for people: its heading, and the parts of a cell, the first the main one."""

    title: str
    cell: Callable[[Row], tuple[str, ...]]
    right: bool = False


# ---- numbers for people --------------------------------------------------------------------


def si(value: float, unit: str) -> str:
    """Three significant digits with a prefix: 1.234e-5, "s" -> "12.3 µs"."""
    exponent = _exponent(value)
    number = value / 10**exponent
    return f"{_number(number, _decimals(number))} {PREFIXES[exponent]}{unit}".rstrip()


def size(count: float) -> str:
    """3355443.2 -> "3.2 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1023.95 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{_number(count, _decimals(count))} {unit}"


def threads_text(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def plain(value: float) -> str:
    """Three significant digits, no prefix, no exponent: 12345.6 -> "12300"."""
    shown = float(f"{value:.3g}")
    return _number(shown, _decimals(shown))


def quantity(reading: Reading, unit: str) -> str:
    """The value alone, marked with "~" when it is projected."""
    return ("~" if reading.mark == "P" else "") + si(reading.value, unit)


def interval(reading: Reading) -> str:
    """Its interval with the prefix and decimals that `quantity` shows it in: "11.9–12.8"."""
    unit = 10 ** _exponent(reading.value)
    decimals = _decimals(reading.value / unit)
    return f"{_number(reading.low / unit, decimals)}–{_number(reading.high / unit, decimals)}"


# ---- cells ---------------------------------------------------------------------------------


def time(row: Row) -> Reading | None:
    """Seconds a generated token takes, a whole prompt in a prefill, or a training step."""
    return evidence.per(evidence.read(row.seconds), row.tokens if row.phase == "decode" else 1)


def _heading(row: Row) -> str:
    where = f"measured on {row.environment.host}" if row.environment else "projected"
    count = threads_text(row.threads)
    return f"{row.device} ({where}), {row.workload}, {count}, {row.engine}"


def _marks(row: Row) -> tuple[str, ...]:
    return ("".join(evidence.mark(e) for e in (row.seconds, row.joules, row.resident)),)


def _time(row: Row) -> tuple[str, ...]:
    reading = time(row)
    return (quantity(reading, "s"), interval(reading)) if reading else ("failed",)


def _rate(row: Row) -> tuple[str, ...]:
    reading = evidence.read(row.seconds)
    if reading is None or reading.value <= 0:
        return ("-",)
    return (("~" if reading.mark == "P" else "") + plain(row.tokens / reading.value),)


def _energy(row: Row) -> tuple[str, ...]:
    reading = evidence.per(evidence.read(row.joules), row.tokens)
    if reading is None:
        return ("-",)
    return quantity(reading, "J"), "model" if reading.mark == "P" else "meter"


def _energy_interval(row: Row) -> tuple[str, ...]:
    reading = evidence.per(evidence.read(row.joules), row.tokens)
    return (*_energy(row), interval(reading)) if reading else ("-",)


def _memory(row: Row) -> tuple[str, ...]:
    reading = evidence.read(row.resident)
    if reading is None:
        return ("-",)
    return tuple((("~" if reading.mark == "P" else "") + size(reading.value)).split())


def _quality(row: Row) -> tuple[str, ...]:
    if row.quality is None:
        return ("-",)
    parts = f"{row.quality.value:.3f}", f"±{row.quality.standard_error:.3f}"
    return parts if row.quality.metric == "bits per byte" else (*parts, row.quality.metric)


def _limit(row: Row) -> tuple[str, ...]:
    if isinstance(row.seconds, Projected):
        return (row.seconds.bound or "-",)
    fraction, note = fraction_of_limit.value(row), fraction_of_limit.note(row)
    if fraction is None:
        return tuple((note or "-").split())
    return (f"{100 * fraction:.0f} %", *(["cache"] if note else []))


def broken(name: str, width: int) -> str:
    """A candidate's name on as many lines as its parts need: architecture, size, steps."""
    if len(name) <= width:
        return name
    base, at, steps = name.partition("@")
    if len(base) > width:
        base = base.replace(":", "\n:")
    return f"{base}\n{at}{steps}" if steps else base


CANDIDATE = Column("candidate", lambda row: (row.candidate,))
PLACE = (
    Column("device", lambda row: (row.device,)),
    Column("workload", lambda row: (row.workload,)),
    Column("threads", lambda row: (str(row.threads),), right=True),
)
MARKS = Column("kind", _marks)
ENERGY = Column("J/ token", _energy, right=True)
NUMBERS = (
    Column("tokens /s", _rate, right=True),
    ENERGY,
    Column("memory", _memory, right=True),
    Column("bits/ byte", _quality, right=True),
    Column("of limit", _limit, right=True),
)


# ---- tables  -------------------------------------------------------------------------------


def terminal(rows: Iterable[Row], width: int = 100, colour: bool = False) -> str:
    """One block for each device, workload and thread count, with footnotes, `width` wide."""
    from rich.console import Console  # noqa: PLC0415  programs that want CSV need no terminal

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, highlight=False)
    footnotes: dict[str, int] = {}
    for _, block in groupby(frame.ordered(rows), key=frame.place):
        group = list(block)
        console.print(f"\n{_heading(group[0])}", style="bold", markup=False)
        console.print(_block(group, footnotes, wide=width >= WIDE))
    console.print()
    for text, number in footnotes.items():
        console.print(f"{number:3d}  {text}", markup=False)
    console.print(f"{LEGEND}. {CPU_ONLY}", markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _block(group: Sequence[Row], footnotes: dict[str, int], wide: bool) -> Table:
    """A rich table; notes that are new are numbered and added to `footnotes`."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    each = {"decode": "token", "prefill": "prompt", "train": "step"}[group[0].phase]
    columns = (CANDIDATE, MARKS, Column(f"time/ {each}", _time, right=True), *NUMBERS)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        title = column.title.replace("/ ", "/").replace(" /", "/")
        table.add_column(
            title if wide else column.title.replace(" ", "\n"),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column is not CANDIDATE,
        )
    table.add_column("notes", overflow="fold")
    for row in group:
        numbers = [footnotes.setdefault(n, len(footnotes) + 1) for n in evidence.notes(row)]
        cells = ((" " if wide else "\n").join(column.cell(row)) for column in columns[1:])
        table.add_row(
            broken(row.candidate, 26 if wide else 15), *cells, " ".join(map(str, numbers))
        )
    return table


def markdown(rows: Iterable[Row]) -> str:
    """One flat table with every column, flags in words."""
    flags = Column("flags", lambda row: ("; ".join(evidence.notes(row)),))
    energy = Column(ENERGY.title, _energy_interval, right=True)
    numbers = (energy if column is ENERGY else column for column in NUMBERS)
    time_each = Column("time per token, prompt or step", _time, right=True)
    columns = (CANDIDATE, *PLACE, MARKS, time_each, *numbers, flags)
    titles = (c.title.replace("/ ", "/").replace(" /", "/") for c in columns)
    lines = ["| " + " | ".join(titles) + " |"]
    lines.append("|" + "|".join("--:" if column.right else ":--" for column in columns) + "|")
    for row in frame.ordered(rows):
        cells = (" ".join(column.cell(row)).replace("|", "\\|") for column in columns)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{LEGEND}. {CPU_ONLY}", ""])


def _exponent(value: float) -> int:
    """The power of ten, a multiple of three, that leaves 1 to 3 digits before the point."""
    if value == 0:
        return 0
    rounded = float(f"{abs(value):.2e}")
    return max(-12, min(12, 3 * math.floor(math.log10(rounded) / 3 + 1e-12)))


def _decimals(value: float) -> int:
    """Places after the point that make three significant digits."""
    if value == 0:
        return 0
    return max(0, 2 - math.floor(math.log10(float(f"{abs(value):.2e}")) + 1e-12))


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}"
