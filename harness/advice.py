"""Standings -> the table and the page of the co-design map."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from harness import best_use, codesign, contenders
from harness.best_use import Standing
from harness.codesign import Budget, Map
from harness.contenders import Contender
from harness.table import plain, si, size

COLUMNS = (
    "suite", "device", "memory_bytes", "bandwidth", "multiply_adds_per_s", "take", "metric",
    "score", "score_low", "score_high", "tied", "tokens_per_s", "low", "high", "chance", "bound",
    "better", "better_bytes", "bus_factor", "clock_factor", "both_factor", "note",
)  # fmt: skip
ABOUT = (
    "Of all that is projected to hold the budget on a device, the best; and of what cannot be told "
    "from it (95 % intervals of the scores overlap), the one of fewest bytes: `take`. Scores are "
    "compared within a suite only (one text or test, one tokenizer, one metric), and formats of "
    "one model on one text differ more surely than their intervals say, so ties are too many "
    "rather than too few. `chance`: that the rate holds, by the interval of the projection. "
    "`for better`: what is better beyond doubt and needs least, with the factor by which the bus "
    "alone, the clocks alone, or both would have to grow; other limits are left aside.",
    "A machine is placed by what it is projected to reach: bytes per second from memory, and "
    "multiply-adds per second with 4-bit weights in llama.cpp. Machines between the devices are "
    "{like} with its bus and clocks scaled: for {same} of {among} points of devices the map names "
    "what the device's own projection does.",
    "Scores and their sources are in `harness/calibration/quality.csv`. Where nobody published "
    "one, nothing is taken: a small model's quality is never joined to a large model's speed. "
    "What was trained here has up to 3 M parameters and is [compared by "
    "itself](../quality/README.md); MCSD at other sizes and in other formats than below has no "
    "evidence.",
)
NO_MAP = "No map: nothing holds this budget on any machine that a map would show."


def as_csv(found: Sequence[Standing]) -> str:
    """A line a suite and device; a blank where nothing is known or needed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found:
        took, rate = one.chosen, one.rate
        score = took.score if took and took.score else ("", "", "")
        writer.writerow(
            [
                one.suite, one.place.device, f"{one.place.memory_bytes:.0f}",
                f"{one.place.bandwidth:.4g}", f"{one.place.compute:.4g}",
                took.name if took else one.verdict, took.metric if took else "", *map(_g, score),
                "; ".join(one.tied), *map(_g, rate or ("", "", "")),
                f"{one.chance:.2f}" if took else "", one.bound,
                one.better.name if one.better else "",
                f"{one.better_bytes:.0f}" if one.better else "", *(_g(f or "") for f in one.lacks),
                "; ".join(one.notes),
            ]
        )  # fmt: skip
    return out.getvalue()


def markdown(
    found: Sequence[Standing], maps: Sequence[Map], budget: Budget, like: str, command: str
) -> str:
    """A page with a table a suite, best reached first, and what nobody scored."""
    same, among = best_use.agreement(maps, found)
    lines = [
        "# What to run where, and what hardware would change it",
        "",
        f"Made by `{command}`: what decodes {budget}.",
        "",
        *(["![co-design map](codesign.png)", "", codesign.KEY] if maps else [NO_MAP]),
    ]
    about = ABOUT if maps else (ABOUT[0], ABOUT[2])
    for text in about:
        lines += ["", text.format(like=like, same=same, among=among)]
    for suite in dict.fromkeys(one.suite for one in found):
        mine = [one for one in found if one.suite == suite]
        lines += [
            "",
            f"## {suite}: {contenders.suites()[suite][0].metric}",
            "",
            contenders.suites()[suite][0].caveat,
            "",
            "| device | memory | reaches | take | score | tied | tokens/s | chance | bound "
            "| for better |",
            "|---|--:|---|---|---|---|---|--:|---|---|",
            *(_line(one) for one in sorted(mine, key=_worth)),
            "",
            f"No evidence of quality: {_unscored(suite)}.",
        ]
    return "\n".join(lines) + "\n"


def _line(one: Standing) -> str:
    place, took = one.place, one.chosen
    reaches = f"{si(place.bandwidth, 'B/s')}, {si(place.compute, '/s')}"
    cells = [place.device, size(place.memory_bytes), reaches]
    if took is None or took.score is None or one.rate is None:
        cells += [one.verdict, "", "", "", "", ""]
    else:
        value, low, high = (plain(number) for number in took.score)
        rate, least, most = (plain(number) for number in one.rate)
        cells += [took.name, f"{value} ({low}–{high})", ", ".join(one.tied)]
        cells += [
            f"~{rate} ({least}–{most})",
            f"{one.chance:.0%}",
            "; ".join((one.bound, *one.notes)),
        ]
    return f"| {' | '.join([*cells, _better(one)])} |"


def _better(one: Standing) -> str:
    if one.better is None:
        return "" if one.verdict == best_use.NO_WATTS else "nothing is"
    ways = [
        f"{what} x{factor:.2f}"
        for what, factor in zip(("bus", "clocks", "both"), one.lacks, strict=True)
        if factor is not None
    ]
    needs = [] if 1.0 in one.lacks else [" or ".join(ways) or "more than x64 of both"]
    if one.better_bytes > one.place.memory_bytes:
        needs.append(f"{size(one.better_bytes)} of memory")
    needs = needs or ["less energy a token"]
    return f"{one.better.name}: {', and '.join(needs)}"


def _worth(one: Standing) -> tuple[float, str]:
    """Sorts by how good what is taken is, then by name."""
    took: Contender | None = one.chosen
    value = took.better * took.score[0] if took and took.score else float("inf")
    return value, one.place.device


def _unscored(suite: str) -> str:
    field = contenders.suites()[suite]
    models = dict.fromkeys(one.title for one in field if one.score is None)
    return (
        "; ".join(
            f"{model} in {', '.join(o.form for o in field if o.title == model and o.score is None)}"
            for model in models
        )
        or "none lacks"
    )


def _g(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"
