"""Weights as they were trained: float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.records import Array, Format
from kernels import matvec_f32


def pack(weights: Array) -> Mapping[str, Array]:
    return {"": np.ascontiguousarray(weights, np.float32)}


def unpack(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return arrays[""].reshape(shape)


def cut(arrays: Mapping[str, Array], rows: slice, columns: slice) -> Mapping[str, Array]:
    return {"": arrays[""][rows, columns]}


def layout(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return matvec_f32.layout(unpack(arrays, shape))


SPEC = Format(
    name="f32",
    summary="float32, as trained",
    pack=pack,
    unpack=unpack,
    cut=cut,
    layout=layout,
    layout_bytes=matvec_f32.layout_bytes,
    kernel="matmul_f32",
    arithmetic="float32",
    bits=32.0,
    rtol=1e-5,
    source="IEEE 754",
)
