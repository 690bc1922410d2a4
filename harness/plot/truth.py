"""Left-out projections -> figure: projected against published rates, with the identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness import scores
from harness.errors import BadInput
from harness.plot.style import BLACK, GREY, PALETTE, SHAPES, WIDTH, new, paper, save
from harness.scores import Left

BAND = 1.3  # the factor that the grey band shows


@paper()
def truth_figure(left: Sequence[Left], path: Path) -> Path:
    """A panel for decode and for prefill; a mark a row, a colour a class of device.

    Hollow marks have a caveat; bars are the 90 % intervals that the other devices give. Raises
    BadInput without rows.
    """
    if not left:
        raise BadInput("no projection to draw")
    classes = sorted({x.observation.setting.device.category for x in left})
    figure = new(WIDTH, 3.7)
    for axes, phase in zip(figure.subplots(1, 2), scores.PHASES, strict=True):
        rows = [x for x in left if x.observation.phase == phase]
        tokens = np.array([x.observation.setting.work.tokens for x in rows])
        published = tokens / np.array([x.observation.seconds for x in rows])
        projected = tokens / np.array([x.seconds for x in rows])
        spread = np.exp(scores.halves(left, phase))
        ends = np.array([published.min() / 2, published.max() * 2])
        axes.fill_between(ends, ends / BAND, ends * BAND, color="#eeeeee", lw=0, zorder=0)
        axes.plot(ends, ends, color=GREY, lw=0.7, zorder=1)
        axes.vlines(
            published, projected / spread, projected * spread, color=GREY, lw=0.3, alpha=0.6
        )
        for i, name in enumerate(classes):
            for hollow in (False, True):
                at = np.array(
                    [
                        x.observation.setting.device.category == name
                        and bool(x.observation.caveat) == hollow
                        for x in rows
                    ],
                    bool,
                )
                colour = PALETTE[i % len(PALETTE)]
                axes.plot(
                    published[at], projected[at], SHAPES[i % len(SHAPES)], ms=3.2, mew=0.6,
                    color=colour, mfc="white" if hollow else colour, zorder=3,
                    label=None if hollow else name,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(ends)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        found = next(s for s in scores.scores(left) if (s.phase, s.which) == (phase, "all"))
        axes.set_title(
            f"{phase}: {found.rows} rows, {found.devices} SoC families, each left out\n"
            f"median error {found.error:.0%}, 90 % interval x{found.width:.2f}",
            color=BLACK,
        )
        axes.set_xlabel("published tokens/s")
        axes.set_ylabel("projected tokens/s")
    axes = figure.axes[0]
    axes.legend(loc="upper left", fontsize=7, handletextpad=0.2)
    return save(figure, path)
