"""Worths of facts -> figure: what one percent more of each does to speed and to energy."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from harness.errors import BadInput
from harness.plot.style import BLACK, PALETTE, WIDTH, new, paper, save
from harness.whatif import Worth


@paper()
def tornado_figure(worths: Sequence[Worth], path: Path, title: str) -> Path:
    """A line a fact, most worth on top; bars to the right are more speed, or more joules.

    Raises BadInput without a fact.
    """
    if not worths:
        raise BadInput("no fact to draw")
    figure = new(0.7 * WIDTH, 0.9 + 0.34 * len(worths))
    axes = figure.subplots()
    for line, worth in enumerate(worths):
        axes.barh(
            line - 0.18, worth.speed, 0.34, color=PALETTE[0], label="speed" if not line else None
        )
        if worth.joules is not None:
            axes.barh(
                line + 0.18, worth.joules, 0.34, color=PALETTE[1],
                label="energy per token" if not line else None,
            )  # fmt: skip
    axes.axvline(0, color=BLACK, lw=0.6)
    axes.set_yticks(range(len(worths)), [worth.fact.replace("_", " ") for worth in worths])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(worths) - 0.5, -0.5)
    reach = 1.1 * max(0.1, *(max(abs(w.speed), abs(w.joules or 0)) for w in worths))
    axes.set_xlim(-reach, reach)
    axes.set_xlabel("percent for one percent more of the fact (projected)")
    axes.set_title(textwrap.fill(title, 60))
    axes.legend(loc="lower right", fontsize=7)
    return save(figure, path)
