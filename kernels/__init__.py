"""One file per operation: its maths, the Numba `run`, the PyTorch `reference`, its cost.

`OWNER` tells these kernels from other packages that are also called `kernels`.
"""

OWNER = "edgewise"
HELPERS = (  # modules that are not kernels
    "attending",
    "attention_over",
    "caches",
    "choice",
    "dots",
    "expand",
    "floats",
    "grouped",
    "groups",
    "laps",
    "lowering",
    "maths",
    "products",
    "rounding",
    "sharing",
    "simd",
    "sparse",
    "spec",
    "team",
    "tile_steps",
    "tiles",
    "vectors",
)
