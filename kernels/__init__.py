"""One file per operation: its maths, the Numba `run`, the PyTorch `reference`, its cost.

`OWNER` tells these kernels from other packages that are also called `kernels`.
"""

OWNER = "edgewise"
HELPERS = ("laps", "maths", "simd", "spec", "team")  # modules that are not kernels
