"""Weights rounded to int8, one scale a row; activations rounded to int8 in the kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.errors import BadInput
from harness.records import Array, Format
from kernels import matvec_int8


def pack(weights: Array) -> Mapping[str, Array]:
    """q = round(w / s) in -127..127 with s = max|row| / 127; raises BadInput."""
    scale = (np.abs(weights).max(1) / 127.0).astype(np.float32)
    if not np.isfinite(scale).all():
        raise BadInput("int8 cannot store weights that are not finite")
    safe = np.where(scale > 0, scale, 1.0)[:, None]
    return {"": np.rint(weights / safe).clip(-127, 127).astype(np.int8), "scale": scale}


def unpack(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    values = arrays[""].astype(np.float32) * arrays["scale"][:, None]
    return values.reshape(shape).astype(np.float32)


def cut(arrays: Mapping[str, Array], rows: slice, columns: slice) -> Mapping[str, Array]:
    return {"": arrays[""][rows, columns], "scale": arrays["scale"][rows]}


def layout(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    levels, scale = arrays[""], arrays["scale"]
    if levels.shape != shape or scale.shape != shape[:1]:
        raise ValueError(f"levels {levels.shape} and scales {scale.shape} do not make {shape}")
    return matvec_int8.layout(levels, scale)


SPEC = Format(
    name="int8",
    summary="int8 weights with a scale a row, int8 activations",
    pack=pack,
    unpack=unpack,
    cut=cut,
    layout=layout,
    layout_bytes=matvec_int8.layout_bytes,
    kernel="matmul_int8",
    arithmetic="int8",
    bits=8.0,
    rtol=2e-2,
    source="round to nearest, symmetric",
)
