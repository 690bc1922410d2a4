"""Half of the weights, the smaller ones, set to zero and skipped; the rest stay float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.errors import BadInput
from harness.records import Array, Format
from kernels import sparse_matvec

COLUMNS = 65535  # column numbers are stored in 16 bits


def kept(rows: int, columns: int) -> int:
    return rows * columns - rows * columns // 2


def pack(weights: Array) -> Mapping[str, Array]:
    """The larger half by magnitude: values, their columns, and where each row starts.

    Raises BadInput.
    """
    if not np.isfinite(weights).all():
        raise BadInput("sparse50 cannot store weights that are not finite")
    rows, columns = weights.shape
    if columns > COLUMNS:
        raise BadInput(f"sparse50 stores at most {COLUMNS} columns, got {columns}")
    order = np.argsort(-np.abs(weights), axis=None, kind="stable")[: kept(rows, columns)]
    places = np.sort(order)
    starts = np.concatenate([[0], np.cumsum(np.bincount(places // columns, minlength=rows))])
    return {
        "": weights.reshape(-1)[places].astype(np.float32),
        "columns": (places % columns).astype(np.uint16),
        "starts": starts.astype(np.int32),
    }


def unpack(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    weights = np.zeros(shape, np.float32)
    rows = np.repeat(np.arange(shape[0]), np.diff(arrays["starts"]))
    weights[rows, arrays["columns"]] = arrays[""]
    return weights


def cut(arrays: Mapping[str, Array], rows: slice, columns: slice) -> Mapping[str, Array]:
    starts, where = arrays["starts"], arrays["columns"].astype(np.int64)
    row_of = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    first, last = columns.start or 0, columns.stop if columns.stop is not None else 65536
    top, bottom = rows.start or 0, rows.stop if rows.stop is not None else starts.size - 1
    inside = (row_of >= top) & (row_of < bottom) & (where >= first) & (where < last)
    counts = np.bincount(row_of[inside] - top, minlength=bottom - top)
    return {
        "": arrays[""][inside],
        "columns": (where[inside] - first).astype(np.uint16),
        "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
    }


def layout(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    starts, columns, values = arrays["starts"], arrays["columns"], arrays[""]
    ordered = starts.size == shape[0] + 1 and starts[0] == 0 and (np.diff(starts) >= 0).all()
    if not ordered or starts[-1] != values.size or columns.size != values.size:
        raise ValueError(f"rows, columns and values do not fit together in {shape}")
    if columns.size and columns.max() >= shape[1]:
        raise ValueError(f"column {columns.max()} is outside of {shape}")
    return sparse_matvec.layout(starts, columns, values)


SPEC = Format(
    name="sparse50",
    summary="unstructured: the larger half of the weights in float32, zeros skipped",
    pack=pack,
    unpack=unpack,
    cut=cut,
    layout=layout,
    layout_bytes=lambda rows, columns: sparse_matvec.layout_bytes(rows, kept(rows, columns)),
    kernel="sparse_matvec",
    arithmetic="float32",
    bits=24.0,
    density=0.5,
    by_rows=False,
    rtol=1e-5,
    source="magnitude pruning, Han et al. 2015, without retraining; compressed sparse rows",
)
