"""Weights rounded to int8 in groups of 32 columns; activations rounded to int8 in the kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.errors import BadInput
from harness.formats import _grouped
from harness.records import Array, Format
from kernels import matvec_int8g32
from kernels.rounding import GROUP


def pack(weights: Array) -> Mapping[str, Array]:
    """q = round(w / s) in -127..127, columns padded to groups of 32; scale float16 (rows, groups).

    s = max|group| / 127 (as the Q8_0 type of llama.cpp). Raises BadInput where a scale would not
    be a finite float16.
    """
    rows, columns = weights.shape
    groups = -(-columns // GROUP)
    padded = np.zeros((rows, groups * GROUP), np.float32)
    padded[:, :columns] = weights
    parts = padded.reshape(rows, groups, GROUP)
    exact = np.abs(parts).max(-1) / np.float32(127.0)
    with np.errstate(over="ignore"):
        scale = exact.astype(np.float16)
    if not np.isfinite(scale).all():
        raise BadInput("int8g32 stores finite weights up to 8.3e6; found larger ones or a NaN")
    # by the float32 scale: levels must not depend on how the scale is rounded for storage
    q = np.rint(parts / np.where(exact == 0, np.float32(1.0), exact)[..., None])
    return {"": q.astype(np.int8).reshape(rows, -1), "scale": scale}


def unpack(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return _grouped.weights(arrays[""].astype(np.float32), arrays, shape)


def cut(arrays: Mapping[str, Array], rows: slice, columns: slice) -> Mapping[str, Array]:
    """Columns must begin at a group of 32."""
    first, _, groups = _grouped.groups_of(columns, arrays[""].shape[1])
    return {
        "": arrays[""][rows, first : groups.stop * GROUP],
        "scale": arrays["scale"][rows, groups],
    }


def layout(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    levels, scale = arrays[""], arrays["scale"]
    groups = -(-shape[1] // GROUP)
    if levels.shape != (shape[0], groups * GROUP) or scale.shape != (shape[0], groups):
        raise ValueError(f"levels {levels.shape} and scales {scale.shape} do not make {shape}")
    return matvec_int8g32.layout(levels[:, : shape[1]], scale)


SPEC = Format(
    name="int8g32",
    summary="int8 weights with a float16 scale for 32 columns, int8 activations",
    pack=pack,
    unpack=unpack,
    cut=cut,
    layout=layout,
    layout_bytes=matvec_int8g32.layout_bytes,
    kernel="matmul_int8g32",
    arithmetic="int8",
    bits=8.5,
    rtol=2e-2,
    source="round to nearest in groups of 32, as the Q8_0 type of llama.cpp",
)
