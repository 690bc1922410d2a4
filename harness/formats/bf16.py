"""Weights as bfloat16, as most public checkpoints store them; activations stay float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.errors import BadInput
from harness.records import Array, Format
from kernels import matvec_bf16
from kernels.matvec_bf16 import narrow, widen


def pack(weights: Array) -> Mapping[str, Array]:
    """The upper halves of float32 as uint16, rounded to nearest; raises BadInput."""
    if not np.isfinite(weights).all():
        raise BadInput("bf16 cannot store weights that are not finite")
    return {"": narrow(weights)}


def unpack(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return widen(arrays[""]).reshape(shape)


def cut(arrays: Mapping[str, Array], rows: slice, columns: slice) -> Mapping[str, Array]:
    return {"": arrays[""][rows, columns]}


def layout(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return matvec_bf16.layout(arrays[""].reshape(shape))


SPEC = Format(
    name="bf16",
    summary="bfloat16 weights, float32 activations",
    pack=pack,
    unpack=unpack,
    cut=cut,
    layout=layout,
    layout_bytes=matvec_bf16.layout_bytes,
    kernel="matmul_bf16",
    arithmetic="float32",
    bits=16.0,
    rtol=1e-5,
    source="Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training",
)
