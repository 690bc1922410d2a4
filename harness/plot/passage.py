"""A passage of text -> figure: what ran for each character beside what predicting it cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.plot.style import WIDTH, new, paper, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 72  # characters in a line
MOST = 6 * COLUMNS
SHADES = "YlGnBu"  # sequential, and told apart in grey
SHOWN = {"\n": "↵", " ": " ", "\t": "⇥"}


@paper()
def passage_figure(
    text: Sequence[str], shares: Sequence[float], nats: Sequence[float], path: Path, title: str
) -> Path:
    """The same lines twice: shaded by the fraction that ran, then by the loss.

    shares, nats: of each character, when the next one was predicted from it. Raises BadInput
    without a character.
    """
    if not text:
        raise BadInput("there is no passage whose activity could be drawn")
    cut = min(len(text), MOST)
    lines = -(-cut // COLUMNS)
    figure = new(WIDTH, 0.9 + 0.36 * lines)
    upper, lower = figure.subplots(2, 1)
    _shaded(upper, text[:cut], shares[:cut], "active fraction", f"{title}: what ran")
    _shaded(lower, text[:cut], nats[:cut], "nats", "what the next character cost")
    return save(figure, path)


def _shaded(
    axes: Axes, text: Sequence[str], values: Sequence[float], unit: str, title: str
) -> None:
    """A cell a character, line by line."""
    import numpy as np  # noqa: PLC0415

    lines = -(-len(text) // COLUMNS)
    grid = np.full(lines * COLUMNS, np.nan)
    grid[: len(values)] = values
    low, high = min(values), max(values)
    image = axes.imshow(
        grid.reshape(lines, COLUMNS), cmap=SHADES, aspect="auto", vmin=low, vmax=high
    )
    middle = (low + high) / 2
    for index, (letter, value) in enumerate(zip(text, values, strict=True)):
        axes.text(
            index % COLUMNS,
            index // COLUMNS,
            SHOWN.get(letter, letter),
            ha="center",
            va="center",
            fontsize=6,
            family="monospace",
            color="white" if value > middle else "#222222",
        )
    axes.set_axis_off()
    axes.set_title(title, loc="left")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, aspect=8)
    bar.set_label(unit, fontsize=7)
    bar.ax.tick_params(labelsize=6)
