"""Rows -> figures for a paper, one file a figure; this package alone imports matplotlib."""

from harness.plot.depth import depth_figure
from harness.plot.energy import energy_figure
from harness.plot.pareto import pareto_figure
from harness.plot.roofline import Point, roofline_figure

__all__ = ["Point", "depth_figure", "energy_figure", "pareto_figure", "roofline_figure"]
