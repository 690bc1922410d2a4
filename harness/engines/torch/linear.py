"""A weight matrix -> PyTorch's ways to multiply by it: eager, packed by oneDNN, int8, int4."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.records import Array

Linear: TypeAlias = Callable[[Tensor], Tensor]  # x (n,k) of the form's own type -> (n,m)
Holder: TypeAlias = Callable[[], Linear]  # one more copy of the weights, in memory of its own
GROUP = 32

# form -> what its activations are; the activations of int8 and int4 are rounded in the call
TYPES: Mapping[str, torch.dtype] = {
    "f32": torch.float32,
    "f32 onednn": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "bf16 onednn": torch.bfloat16,
    "int8 dynamic": torch.float32,
    "int8 packed": torch.bfloat16,
    "int4 packed": torch.bfloat16,
}
# form -> ours with weights of as many bits, rounded over as many columns or more
LIKE: Mapping[str, str] = {
    "f32": "f32", "f32 onednn": "f32", "f16": "f16", "bf16": "bf16", "bf16 onednn": "bf16",
    "int8 dynamic": "int8", "int8 packed": "int8", "int4 packed": "int4",
}  # fmt: skip


def linear(form: str, weights: Array) -> Linear:
    """weights (m,k) float32 in that form, laid out once."""
    return twin(form, weights, 1)[0]


def twin(form: str, weights: Array, count: int) -> list[Linear]:
    """The same matrix so many times over, each in memory of its own.

    "onednn" is what torch.compile calls for frozen weights. Raises RuntimeError for a form that
    this CPU does not have.
    """
    hold = _HOLDERS[form](torch.from_numpy(weights))
    return [hold() for _ in range(count)]


def use(threads: int) -> None:
    """How many threads PyTorch's operators take from now on."""
    torch.set_num_threads(threads)


def lap(form: str, linears: list[Linear], x: Array) -> Callable[[], Array]:
    """One call of each of them on x (k,); returns the last product (m,)."""
    given = torch.from_numpy(np.ascontiguousarray(x[None])).to(TYPES[form])

    def work() -> Array:
        with torch.inference_mode():
            for multiply in linears:
                y = multiply(given)
        product: Array = y[0].float().numpy()
        return product

    return work


# ---- what rounds the weights, and returns what makes one more copy of them


def _plain(type_: torch.dtype) -> Callable[[Tensor], Holder]:
    def rounded(weights: Tensor) -> Holder:
        values = weights.to(type_)

        def hold() -> Linear:
            held = values.clone()
            return lambda x: functional.linear(x, held)

        return hold

    return rounded


def _onednn(type_: torch.dtype) -> Callable[[Tensor], Holder]:
    def rounded(weights: Tensor) -> Holder:
        values, multiply = weights.to(type_), torch.ops.mkldnn._linear_pointwise

        def hold() -> Linear:
            held = torch.ops.mkldnn._reorder_linear_weight(values, 1)
            return lambda x: multiply(x, held, None, "none", [], "")  # type: ignore[no-any-return]

        return hold

    return rounded


def _dynamic(weights: Tensor) -> Holder:
    """FBGEMM: int8 a row; activations rounded with one scale and a zero point, per call."""
    scale = weights.abs().amax(1).double() / 127
    zero = torch.zeros(len(weights), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # quantised tensors are deprecated
        values = torch.quantize_per_channel(weights, scale, zero, 0, torch.qint8)
    multiply = torch.ops.quantized.linear_dynamic

    def hold() -> Linear:
        before = torch.backends.quantized.engine
        if "fbgemm" in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = "fbgemm"
        held = torch.ops.quantized.linear_prepack(values, None)
        torch.backends.quantized.engine = before
        return lambda x: multiply(x, held, False)  # type: ignore[no-any-return]

    return hold


def _int8(weights: Tensor) -> Holder:
    """int8 a row, bfloat16 activations: what torchao calls weight-only."""
    scale = weights.abs().amax(1) / 127
    values = torch.round(weights / scale[:, None]).to(torch.int8)
    factors, multiply = scale.bfloat16(), torch.ops.aten._weight_int8pack_mm

    def hold() -> Linear:
        held = values.clone()
        return lambda x: multiply(x, held, factors)  # type: ignore[no-any-return]

    return hold


def _int4(weights: Tensor) -> Holder:
    """int4 in groups of 32 columns with bfloat16 scales, bfloat16 activations."""
    m, k = weights.shape
    groups = weights.reshape(m, k // GROUP, GROUP)
    scale = groups.abs().amax(-1) / 7
    levels = torch.round(groups / scale.clamp_min(1e-12)[..., None]).clamp(-8, 7) + 8
    values = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.reshape(m, k).int(), 1)
    # stored values are (level - 8) * scale + zero
    factors = torch.stack([scale.T, torch.zeros_like(scale.T)], -1).bfloat16().contiguous()
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu

    def hold() -> Linear:
        held, scales = values.clone(), factors.clone()
        return lambda x: multiply(x, held, GROUP, scales)  # type: ignore[no-any-return]

    return hold


_HOLDERS: Mapping[str, Callable[[Tensor], Holder]] = {
    "f32": _plain(torch.float32),
    "f32 onednn": _onednn(torch.float32),
    "f16": _plain(torch.float16),
    "bf16": _plain(torch.bfloat16),
    "bf16 onednn": _onednn(torch.bfloat16),
    "int8 dynamic": _dynamic,
    "int8 packed": _int8,
    "int4 packed": _int4,
}
