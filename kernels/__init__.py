"""One file per operation: its maths, the Numba `run`, the PyTorch `reference`, its cost.

`OWNER` tells these kernels from other packages that are also called `kernels`.
"""

OWNER = "edgewise"
HELPERS = ("dots", "laps", "lowering", "maths", "simd", "spec", "team")  # not kernels
