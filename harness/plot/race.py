"""Seconds by engine and context depth -> figure: time per token, and how many times ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.plot.style import BLACK, PALETTE, WIDTH, new, paper, save, ticks

Lines = Mapping[str, Mapping[int, float]]  # name -> depth -> seconds


@paper()
def race_figure(panels: Mapping[str, Lines], path: Path, title: str) -> Path:
    """A panel a thread count; the first line of each is what the others are compared with."""
    figure = new(WIDTH, 2.9)
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, lines) in zip(every, panels.items(), strict=True):
        base = next(iter(lines.values()))
        last = max(base)
        for i, (line, points) in enumerate(lines.items()):
            colour = PALETTE[i % len(PALETTE)]
            axes.plot(list(points), list(points.values()), "o-", color=colour, ms=4, lw=1.3)
            axes.annotate(
                line,
                (last, points[last]),
                xytext=(-4, 5),
                textcoords="offset points",
                ha="right",
                fontsize=7,
                color=colour,
            )
            for depth, seconds in points.items() if i else ():
                axes.annotate(
                    f"{seconds / base[depth]:.1f}x",
                    (depth, seconds),
                    xytext=(4, -8),
                    textcoords="offset points",
                    ha="right" if depth == last else "left",
                    fontsize=6,
                    color=BLACK,
                )
        axes.set_yscale("log")
        axes.set_xticks(list(base), [str(depth) for depth in base])
        axes.set_xlabel("context depth (tokens)")
        axes.set_title(f"time per token, {name}", loc="left")
    every_value = [v for lines in panels.values() for p in lines.values() for v in p.values()]
    every[0].set_ylim(min(every_value) / 1.6, max(every_value) * 1.6)
    ticks(every[0].yaxis, "s")
    figure.suptitle(f"{title}; times by which MCSD is faster", fontsize=8, x=0.01, ha="left")
    return save(figure, path)
