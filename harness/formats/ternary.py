"""Weights rounded to -1, 0 or 1 times a scale for 32 columns; activations to int8 in the kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.errors import BadInput
from harness.formats import _grouped
from harness.records import Array, Format, Grid
from kernels import matvec_ternary
from kernels.matvec_ternary import SHIFTS
from kernels.rounding import GROUP


def pack(weights: Array) -> Mapping[str, Array]:
    """Four weights a byte, the first column lowest; scale float16 (rows, groups).

    The scale with the least squared error: that of keeping the n largest weights of a group is
    their mean, and it takes (sum of them)^2 / n off the error, so the best n is known at once.
    Raises BadInput where a scale would not be a finite float16.
    """
    rows, columns = weights.shape
    groups = -(-columns // GROUP)
    padded = np.zeros((rows, groups * GROUP), np.float32)
    padded[:, :columns] = weights
    parts = padded.reshape(rows, groups, GROUP)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.cumsum(np.sort(np.abs(parts), axis=-1)[..., ::-1], axis=-1, dtype=np.float64)
        counts = np.arange(1, GROUP + 1)
        best = (sums / np.sqrt(counts)).argmax(-1)[..., None]
        scale = (np.take_along_axis(sums, best, -1)[..., 0] / counts[best[..., 0]]).astype(
            np.float16
        )
    if not np.isfinite(scale).all() or not np.isfinite(weights).all():
        raise BadInput("ternary stores finite weights up to 6.5e4; found larger ones or a NaN")
    wide = scale.astype(np.float32)[..., None]
    q = np.rint(parts / np.where(wide == 0, 1.0, wide)).clip(-1, 1)
    return store(np.where(wide == 0, 0, q).reshape(rows, -1), scale)


def store(levels: Array, scale: Array) -> Mapping[str, Array]:
    """levels (rows, groups * 32) in -1..1, scale (rows, groups) float16."""
    fours = (levels + 1).astype(np.uint8).reshape(levels.shape[0], -1, 4)
    return {"": np.bitwise_or.reduce(fours << SHIFTS, axis=-1), "scale": scale}


def levels_of(arrays: Mapping[str, Array]) -> Array:
    """The weights' levels plus 1, (rows, groups * 32) uint8."""
    packed = arrays[""]
    levels: Array = (packed[..., None] >> SHIFTS & 3).reshape(packed.shape[0], -1)
    return levels


def unpack(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return _grouped.weights(levels_of(arrays).astype(np.float32) - 1.0, arrays, shape)


def cut(arrays: Mapping[str, Array], rows: slice, columns: slice) -> Mapping[str, Array]:
    """Columns must begin at a group of 32."""
    first, _, groups = _grouped.groups_of(columns, 4 * arrays[""].shape[1])
    return {
        "": arrays[""][rows, first // 4 : groups.stop * GROUP // 4],
        "scale": arrays["scale"][rows, groups],
    }


def layout(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    levels, scale = levels_of(arrays), arrays["scale"]
    groups = -(-shape[1] // GROUP)
    if levels.shape != (shape[0], groups * GROUP) or scale.shape != (shape[0], groups):
        raise ValueError(f"levels {levels.shape} and scales {scale.shape} do not make {shape}")
    if (levels > 2).any():
        raise ValueError("a weight has a level of 3, beyond -1, 0 and 1")
    return matvec_ternary.layout(levels[:, : shape[1]], scale)


SPEC = Format(
    name="ternary",
    summary="weights of -1, 0 and 1 with a float16 scale for 32 columns, int8 activations",
    pack=pack,
    unpack=unpack,
    cut=cut,
    layout=layout,
    layout_bytes=matvec_ternary.layout_bytes,
    kernel="matmul_ternary",
    arithmetic="int8",
    bits=2.5,
    rtol=2e-2,
    grid=Grid(low=-1, high=1, group=GROUP, store=store),
    source="Li & Liu 2016, Ternary Weight Networks, with the scale that makes the least error",
)
