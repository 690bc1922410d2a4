"""Weights rounded to int4 in groups of 32 columns; activations rounded to int8 in the kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.errors import BadInput
from harness.formats import _grouped
from harness.records import Array, Format, Grid
from kernels import matvec_int4
from kernels.rounding import GROUP


def pack(weights: Array) -> Mapping[str, Array]:
    """Two weights a byte, the even column low; scale float16 (rows, groups).

    q = round(w / s) + 8 in 0..15; s is the signed largest value of the group over -8, so that
    the one extra negative level serves the largest value (as the Q4_0 type of llama.cpp).
    Raises BadInput where a scale would not be a finite float16.
    """
    rows, columns = weights.shape
    groups = -(-columns // GROUP)
    padded = np.zeros((rows, groups * GROUP), np.float32)
    padded[:, :columns] = weights
    parts = padded.reshape(rows, groups, GROUP)
    place = np.abs(parts).argmax(-1)[..., None]
    with np.errstate(over="ignore"):
        scale = (np.take_along_axis(parts, place, -1)[..., 0] / -8.0).astype(np.float16)
    if not np.isfinite(scale).all():
        raise BadInput("int4 stores finite weights up to 5.2e5; found larger ones or a NaN")
    wide = scale.astype(np.float32)[..., None]
    q = np.rint(parts / np.where(wide == 0, 1.0, wide))
    return store(q.clip(-8, 7).reshape(rows, -1), scale)


def store(levels: Array, scale: Array) -> Mapping[str, Array]:
    """levels (rows, groups * 32) in -8..7, scale (rows, groups) float16."""
    biased = (levels + 8).astype(np.uint8)
    return {"": biased[:, ::2] | (biased[:, 1::2] << 4), "scale": scale}


def levels_of(arrays: Mapping[str, Array]) -> Array:
    """The weights' levels 0..15, (rows, groups * 32) uint8."""
    packed = arrays[""]
    levels = np.empty((packed.shape[0], 2 * packed.shape[1]), np.uint8)
    levels[:, ::2], levels[:, 1::2] = packed & 15, packed >> 4
    return levels


def unpack(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return _grouped.weights(levels_of(arrays).astype(np.float32) - 8.0, arrays, shape)


def cut(arrays: Mapping[str, Array], rows: slice, columns: slice) -> Mapping[str, Array]:
    """Columns must begin at a group of 32."""
    first, last, groups = _grouped.groups_of(columns, 2 * arrays[""].shape[1])
    return {
        "": arrays[""][rows, first // 2 : -(-last // 2)],
        "scale": arrays["scale"][rows, groups],
    }


def layout(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    levels, scale = levels_of(arrays), arrays["scale"]
    groups = -(-shape[1] // GROUP)
    if levels.shape[0] != shape[0] or scale.shape != (shape[0], groups):
        raise ValueError(f"levels {levels.shape} and scales {scale.shape} do not make {shape}")
    return matvec_int4.layout(levels[:, : shape[1]], scale)


SPEC = Format(
    name="int4",
    summary="int4 weights with a float16 scale for 32 columns, int8 activations",
    pack=pack,
    unpack=unpack,
    cut=cut,
    layout=layout,
    layout_bytes=matvec_int4.layout_bytes,
    kernel="matmul_int4",
    arithmetic="int8",
    bits=4.5,
    rtol=2e-2,
    grid=Grid(low=-8, high=7, group=GROUP, store=store),
    source="round to nearest in groups of 32, as the Q4_0 type of llama.cpp",
)
