"""What formats of groups of 32 columns with one scale a row share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.records import Array
from kernels.rounding import GROUP


def weights(levels: Array, arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    """Levels (rows, groups * 32) float32, zero at 0, times their scales -> (rows,columns)."""
    groups = levels.reshape(shape[0], -1, GROUP)
    found = groups * arrays["scale"].astype(np.float32)[..., None]
    return found.reshape(shape[0], -1)[:, : shape[1]].astype(np.float32)


def groups_of(columns: slice, count: int) -> tuple[int, int, slice]:
    """The first and last of `columns`, `count` in all, and the groups they lie in.

    Raises ValueError where they begin amid a group.
    """
    first, last = columns.start or 0, columns.stop or count
    if first % GROUP:
        raise ValueError(f"a part begins at column {first}, which is no multiple of {GROUP}")
    return first, last, slice(first // GROUP, -(-last // GROUP))
