"""Headings + cells -> Markdown; numbers as a study's tables show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.evidence import Reading
from harness.study.claims import Estimate
from harness.table import quantity


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Words of the first column to the left, all others to the right; "" without lines."""
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    if not rows:
        return "No trials of this yet.\n"
    rule = "|:--" + "|--:" * (len(heads) - 1) + "|"
    return "\n".join(["| " + " | ".join(heads) + " |", rule, *rows]) + "\n"


def page(parts: Iterable[str]) -> str:
    """Headings, paragraphs and tables below each other, a blank line between them."""
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def score(known: Estimate, decimals: int = 4) -> str:
    """The mean, and half of its interval where there are seeds enough for one."""
    if known.value is None:
        return "-"
    text = f"{known.value:.{decimals}f}"
    if known.high is None:
        return text
    return f"{text} ± {known.high - known.value:.{decimals}f}"


def change(known: Estimate, decimals: int = 4) -> str:
    """A difference with its sign and interval."""
    if known.value is None:
        return "-"
    text = f"{known.value:+.{decimals}f}"
    if known.low is None or known.high is None:
        return f"{text} (one seed)"
    return f"{text} ({known.low:+.{decimals}f} to {known.high:+.{decimals}f})"


def verdict(known: Estimate, better: float) -> str:
    """Of a difference: which way the whole interval points. better: 1 where less is better."""
    if known.low is None or known.high is None:
        return "unresolved"
    low, high = sorted((better * known.low, better * known.high))
    return "better" if high < 0 else "worse" if low > 0 else "unresolved"


def cost(reading: Reading | None, unit: str) -> str:
    return "-" if reading is None else quantity(reading, unit)


def kib(count: float) -> str:
    return f"{count / 1024:.0f}"
