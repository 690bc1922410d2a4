"""Packed arrays of a weight matrix -> the blocks in which ggml stores the same levels.

int4 here is ggml's Q4_0 and int8 in groups of 32 its Q8_0; int8 with one scale a row is a Q8_0 that
repeats it, as float16. Source: block_q4_0 and block_q8_0 of ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from harness.formats import int4
from harness.records import Array

GROUP = 32  # weights that share a scale in Q4_0 and Q8_0


@dataclass(frozen=True, slots=True)
class Encoding:
    """The ggml type that holds a format, and its rows made of the arrays of a tensor."""

    kind: str
    rows: Callable[[Mapping[str, Array]], Array]


def _q8(levels: Array, scales: Array) -> Array:
    """Blocks of Q8_0, (rows, groups * 34) uint8: a float16 scale, then 32 levels."""
    rows, groups = scales.shape
    blocks = np.empty((rows, groups, 2 + GROUP), np.uint8)
    blocks[..., :2] = scales.astype("<f2")[..., None].view(np.uint8)
    blocks[..., 2:] = levels.view(np.uint8).reshape(rows, groups, GROUP)
    return blocks.reshape(rows, -1)


def _from_int8(arrays: Mapping[str, Array]) -> Array:
    levels = arrays[""]
    groups = levels.shape[1] // GROUP
    return _q8(levels, np.repeat(arrays["scale"][:, None], groups, axis=1))


def _from_int4(arrays: Mapping[str, Array]) -> Array:
    """Blocks of Q4_0, (rows, groups * 18) uint8: a float16 scale, then 32 levels of 0..15.

    A byte holds levels i and i + 16 of a block; the format here keeps 2i and 2i + 1 together.
    """
    scales = arrays["scale"]
    rows, groups = scales.shape
    levels = int4.levels_of(arrays).reshape(rows, groups, 2, GROUP // 2)
    blocks = np.empty((rows, groups, 2 + GROUP // 2), np.uint8)
    blocks[..., :2] = scales.astype("<f2")[..., None].view(np.uint8)
    blocks[..., 2:] = levels[:, :, 0] | (levels[:, :, 1] << 4)
    return blocks.reshape(rows, -1)


ENCODINGS: Mapping[str, Encoding] = {
    "f32": Encoding("F32", lambda arrays: arrays[""].astype("<f4")),
    "f16": Encoding("F16", lambda arrays: arrays[""].astype("<f2")),
    "bf16": Encoding("BF16", lambda arrays: arrays[""].astype("<u2")),
    "int8": Encoding("Q8_0", _from_int8),
    "int8g32": Encoding("Q8_0", lambda arrays: _q8(arrays[""], arrays["scale"])),
    "int4": Encoding("Q4_0", _from_int4),
}
