"""Rows -> figures for a paper, one file a figure; this package alone imports matplotlib."""

from harness.plot.codesign import codesign_figure
from harness.plot.curves import Curve, curves_figure
from harness.plot.depth import depth_figure
from harness.plot.energy import energy_figure
from harness.plot.pareto import pareto_figure
from harness.plot.passage import passage_figure
from harness.plot.roofline import Point, roofline_figure
from harness.plot.tornado import tornado_figure
from harness.plot.tradeoff import Spot, tradeoff_figure
from harness.plot.truth import truth_figure

__all__ = [
    "Curve",
    "Point",
    "Spot",
    "codesign_figure",
    "curves_figure",
    "depth_figure",
    "energy_figure",
    "pareto_figure",
    "passage_figure",
    "roofline_figure",
    "tornado_figure",
    "tradeoff_figure",
    "truth_figure",
]
