"""One file per operation: its maths, the Numba `run`, the PyTorch `reference`, its cost.

`OWNER` tells these kernels from other packages that are also called `kernels`.
"""

OWNER = "edgewise"
HELPERS = (  # modules that are not kernels
    "attending",
    "caches",
    "dots",
    "floats",
    "laps",
    "lowering",
    "maths",
    "products",
    "rounding",
    "sharing",
    "simd",
    "spec",
    "team",
    "tile_steps",
    "tiles",
)
