"""The nouns of the peers bench: cells, groups of them, and what a group is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from harness.errors import BadPlugin

Met: TypeAlias = Literal["yes", "no", "unresolved", "failed", ""]
BAR = re.compile(r"(?P<side><=|>=) (?P<value>[0-9.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One comparison; "110m int4 decode, 2 threads" says what was compared.

    ours, theirs: medians in `unit` ("s", "B/s", "op/s", "B", "1"); theirs is the best peer or the
        machine's limit; None where there is none
    ratio: what the bar is about, larger being better for us unless the bar says "<="
    low, high: 95 % interval of the ratio
    met: "unresolved" when the interval straddles the bar; "failed" with the reason in the note;
        "" without a bar
    headline: stands in the README, the others only in the full table
    """

    cell: str
    ours: float | None = None
    theirs: float | None = None
    unit: str = "s"
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    bar: str = ""
    met: Met = ""
    note: str = ""
    headline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a group is told by the run it is part of.

    threads: thread counts to try: 1, 2, 4 ... and all cores
    cpus: what to pin threads to, in this order; () where that is not possible
    rounds: how often each side of a comparison takes its turn
    say: tells a person what goes on
    """

    threads: tuple[int, ...]
    cpus: tuple[int, ...] = ()
    rounds: int = 15
    quick: bool = False  # a smoke test: small and few, not published
    say: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Cells that are measured together, in a process of their own.

    plan(setup): the name of every cell to come, and its bar ("" for none), without any package
    cells(setup): those cells, in any order, each as soon as it is known
    needs: packages to import; without them every cell of the plan fails with the reason
    peers: names of engines whose version, build and threads the table states
    environment: variables of the process, beside those of the run; None takes one away
    table(cells): Markdown that shows the same cells another way, below their list
    figure(cells, path): draws them next to the tables; None when too much of it is missing
    """

    name: str
    summary: str
    plan: Callable[[Setup], Mapping[str, str]]
    cells: Callable[[Setup], Iterator[Cell]]
    needs: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    timeout: float = 1800.0  # seconds until the process counts as hung
    table: Callable[[Sequence[Cell]], str] = lambda found: ""
    figure: Callable[[Sequence[Cell], Path], Path | None] | None = None
    source: str = ""


def verdict(bar: str, ratio: float, low: float, high: float) -> Met:
    """Whether the whole interval is on the good side of the bar, on the bad one, or astride."""
    if not bar:
        return ""
    side, value = parts(bar)
    if side == "<=":
        low, high, value = -high, -low, -value
    if low >= value:
        return "yes"
    return "no" if high < value else "unresolved"


def parts(bar: str) -> tuple[str, float]:
    """ ">= 1.5" -> (">=", 1.5). Raises BadPlugin."""
    match = BAR.fullmatch(bar)
    if match is None:
        raise BadPlugin(f"a bar is written '>= 1.5' or '<= 1.03', not {bar!r}")
    return match["side"], float(match["value"])


def failed(name: str, bar: str, reason: str) -> Cell:
    return Cell(cell=name, bar=bar, met="failed", note=" ".join(reason.split())[:300])
