"""Crossovers -> the table and the page of where one algorithm overtakes another."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from harness.crossover import Crossing, Crossover


def as_csv(found: Sequence[Crossover]) -> str:
    """A line a device and format; a blank is "nowhere"."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    about = ("depth", "active", "equal")
    heads = [f"{name}_{part}" for name in about for part in ("even", "sure", "verdict")]
    writer.writerow(["device", "size", "format", *heads, "attention_fits_to", "note"])
    for one in found:
        crossings: list[object] = []
        for each in (getattr(one, name) for name in about):
            crossings += ["" if x is None else f"{x:.4g}" for x in (each.even, each.sure)]
            crossings.append(each.verdict)
        fits = "" if one.fits is None else one.fits
        writer.writerow([one.device, one.size, one.format, *crossings, fits, "; ".join(one.notes)])
    return out.getvalue()


def markdown(found: Sequence[Crossover]) -> str:
    """A page with one table a question: devices down, formats across."""
    formats = list(dict.fromkeys(one.format for one in found))
    by_place = {(one.device, one.format): one for one in found}
    lines = [f"# Where one algorithm overtakes another, at {found[0].size}", "", *_ABOUT]
    for title, cell in _QUESTIONS.items():
        lines += ["", f"## {title}", "", f"| device | {' | '.join(formats)} |"]
        lines.append(f"|---|{'---|' * len(formats)}")
        for device in dict.fromkeys(one.device for one in found):
            cells = (cell(by_place[device, form]) for form in formats)
            lines.append(f"| {device} | {' | '.join(cells)} |")
    for note in dict.fromkeys(note for one in found for note in one.notes):
        where = dict.fromkeys(one.device for one in found if note in one.notes)
        lines += ["", f"{note[0].upper()}{note[1:]}: {', '.join(where)}."]
    return "\n".join(lines) + "\n"


def _told(crossing: Crossing, show: Callable[[float], str]) -> str:
    if crossing.verdict in ("tied", "never") or crossing.even is None:
        return crossing.verdict
    even = "always" if crossing.verdict == "always" else show(crossing.even)
    if crossing.sure is None:
        return f"{even}, nowhere surely"
    return (
        f"{even}, surely"
        if crossing.sure == crossing.even
        else f"{even}, surely {show(crossing.sure)}"
    )


def _tokens(count: float) -> str:
    return f"{count:,.0f}"


def _fraction(share: float) -> str:
    return f"{share:.2f}"


def _room(one: Crossover) -> str:
    return "weights do not fit" if one.fits is None else _tokens(one.fits)


_ABOUT = (
    "Projected decoding at batch one on our engine, each side with its fastest count of threads. "
    "`N, surely M`: times are equal at N; from (or up to) M on one side leads by more than two "
    "projections of one device, engine and format differ by chance, with 90 %. `always`: from the "
    "first token on, or with all neurons; `tied`: nobody surely leads anywhere. An ffn that is "
    "`selective` reads and computes only a fraction of its groups.",
)
_QUESTIONS: Mapping[str, Callable[[Crossover], str]] = {
    "Context from which MCSD decodes faster than attention of as many parameters": lambda one: (
        _told(one.depth, _tokens)
    ),
    "Context to which attention's cache fits in memory": _room,
    "Active fraction up to which `selective` is faster than dense of as many parameters": (
        lambda one: _told(one.active, _fraction)
    ),
    "The same against dense of as many operations": lambda one: _told(one.equal, _fraction),
}
