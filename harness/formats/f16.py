"""Weights as float16; activations and sums stay float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.errors import BadInput
from harness.records import Array, Format
from kernels import matvec_f16


def pack(weights: Array) -> Mapping[str, Array]:
    """Rounded to nearest; raises BadInput where a weight is beyond float16."""
    with np.errstate(over="ignore"):
        narrow = weights.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise BadInput("f16 stores finite weights up to 65504; found larger ones or a NaN")
    return {"": narrow}


def unpack(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return arrays[""].astype(np.float32).reshape(shape)


def cut(arrays: Mapping[str, Array], rows: slice, columns: slice) -> Mapping[str, Array]:
    return {"": arrays[""][rows, columns]}


def layout(arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    return matvec_f16.layout(arrays[""].reshape(shape))


SPEC = Format(
    name="f16",
    summary="float16 weights, float32 activations",
    pack=pack,
    unpack=unpack,
    cut=cut,
    layout=layout,
    layout_bytes=matvec_f16.layout_bytes,
    kernel="matmul_f16",
    arithmetic="float32",
    bits=16.0,
    rtol=1e-5,
    source="IEEE 754 binary16",
)
