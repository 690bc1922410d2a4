"""A kernel against its reference. Nothing is timed before this passes."""

from __future__ import annotations

import numpy as np

from harness.errors import Mismatch
from kernels import spec
from kernels.spec import Kernel, Sizes


def verify(kernel: Kernel, sizes: Sizes, seed: int = 0) -> float:
    """Largest |run - reference| / max(1, max|reference|) over outputs and new state.

    One random input. Outputs start as NaN, so an element the kernel forgets to write is a
    mismatch too. Raises Mismatch above kernel.rtol.
    """
    arrays = kernel.inputs(sizes, np.random.default_rng(seed))
    expected = kernel.reference(sizes, *(a.copy() for a in arrays))
    outputs = spec.call(kernel, sizes, *arrays)
    state = [
        array
        for argument, array in zip(kernel.of("input", "state"), arrays, strict=True)
        if argument.role == "state"
    ]
    worst = 0.0
    for found, right in zip((*outputs, *state), expected, strict=True):
        scale = max(1.0, float(np.max(np.abs(right), initial=0.0)))
        error = float(np.max(np.abs(found - right), initial=0.0)) / scale
        if not error <= kernel.rtol:  # also catches NaN
            raise Mismatch(
                f"kernel {kernel.name} at {dict(sizes)}: error {error:.2e}, "
                f"allowed {kernel.rtol:.0e}"
            )
        worst = max(worst, error)
    return worst
