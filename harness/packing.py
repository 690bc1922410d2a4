"""A matrix -> the arrays a weight format stores, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.records import Array, Format

VALUES = 2**20  # packed at once: the float32 copies that packing makes of them stay in a cache


def pack(form: Format, shape: tuple[int, ...], rows: Callable[[slice], Array]) -> dict[str, Array]:
    """What form.pack gives for the matrix whose float32 rows `rows` reads.

    Memory is that of the packed arrays and of a few rows, however large the matrix, where the
    format packs each row by itself. Raises BadInput as form.pack does.
    """
    if not form.by_rows:
        return dict(form.pack(rows(slice(0, shape[0]))))
    step = max(1, VALUES // shape[1])
    parts = [form.pack(rows(slice(i, min(i + step, shape[0])))) for i in range(0, shape[0], step)]
    if len(parts) == 1:
        return dict(parts[0])
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
