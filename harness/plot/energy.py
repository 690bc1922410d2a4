"""Rows -> figure: energy for a token, by candidate and device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness import evidence
from harness.errors import BadInput
from harness.plot.style import (
    BLACK,
    PALETTE,
    SHAPES,
    WIDTH,
    fastest,
    grouped_legend,
    mark,
    model,
    new,
    paper,
    save,
    ticks,
)
from harness.records import Row


@paper()
def energy_figure(rows: Iterable[Row], path: Path, workload: str = "tg64") -> Path:
    """Joules for a token with its interval, a line a candidate, a mark a device.

    Filled marks were metered, hollow ones come from the energy model. Each candidate stands with
    its fastest thread count. Raises BadInput when no row has an energy.
    """
    chosen = [
        row
        for row in fastest(rows)
        if row.workload == workload and evidence.read(row.joules) is not None
    ]
    if not chosen:
        raise BadInput(f"no row of {workload} has an energy to draw")
    weights = {model(row): row.parameters for row in sorted(chosen, key=lambda r: r.parameters)}
    names = sorted(
        {row.candidate: model(row) for row in chosen}.items(),
        key=lambda item: (weights[item[1]], item[1], item[0]),
    )
    places = {name: line for line, (name, _) in enumerate(names)}
    devices = list(dict.fromkeys(row.device for row in chosen))
    figure = new(WIDTH, 1.1 + 0.19 * len(names))
    axes = figure.subplots()
    spread = 0.5 / max(1, len(devices) - 1)
    for row in chosen:
        reading = evidence.per(evidence.read(row.joules), row.tokens)
        if reading is None:
            continue
        which = devices.index(row.device)
        y = places[row.candidate] + (which - (len(devices) - 1) / 2) * spread
        colour = PALETTE[which % len(PALETTE)]
        axes.plot([reading.low, reading.high], [y, y], color=colour, lw=0.7, alpha=0.7)
        axes.plot(
            reading.value,
            y,
            SHAPES[which % len(SHAPES)],
            ms=4,
            color=colour,
            mfc="white" if reading.mark == "P" else colour,
        )
    axes.set_yticks(range(len(names)), [name for name, _ in names], fontsize=7)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for line in range(1, len(names)):
        if names[line][1] != names[line - 1][1]:
            axes.axhline(line - 0.5, color=BLACK, lw=0.5)
    axes.set_xscale("log")
    ticks(axes.xaxis, "J")
    axes.set_xlabel(f"energy per token ({workload}, CPU; less is better)")
    marks = [
        mark(name, PALETTE[i % len(PALETTE)], SHAPES[i % len(SHAPES)])
        for i, name in enumerate(devices)
    ]
    kinds = [mark("metered", BLACK), mark("modelled, 90 % interval", BLACK, hollow=True)]
    grouped_legend(figure, {"device": marks, "evidence": kinds})
    return save(figure, path)
