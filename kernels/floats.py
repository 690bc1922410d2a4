"""What the float formats share: W in 32 or 16 bits, x and sums in float32.

A format is how sixteen weights are loaded and widened. The layout is one stream, sixteen rows
abreast, so that sums need no shuffling and memory is read in order. Rows past m are zero.

    block 0 (rows 0-15)                        block 1 (rows 16-31)
    | w[0..15, 0] | w[0..15, 1] | ... k times  | w[16..31, 0] | ...        sixteen weights each
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from kernels import simd, tiles
from kernels.simd import LANES, OPTIONS
from kernels.spec import Array


def layout(values: Array) -> Array:
    """values (m,k), of 2 or 4 bytes each -> the stream, uint8."""
    m, k = values.shape
    padded = np.zeros((-(-m // LANES) * LANES, k), values.dtype)
    padded[:m] = values
    blocks = padded.reshape(-1, LANES, k).transpose(0, 2, 1)
    return np.ascontiguousarray(blocks).reshape(-1).view(np.uint8)


def rows_of(stream: Array, dtype: type[np.generic], m: int, k: int) -> Array:
    """The stream back as (m,k) values of `dtype`."""
    blocks = stream.view(dtype).reshape(-1, k, LANES)
    return blocks.transpose(0, 2, 1).reshape(-1, k)[:m]


def layout_bytes(m: int, k: int, size: int) -> int:
    return -(-m // LANES) * LANES * k * size


@njit(**OPTIONS)
def activation_bytes(k: int) -> int:
    return 4 * k


@njit(**OPTIONS)
def prepare(x: Array, at: int, k: int, activations: Array, to: int) -> None:
    """Copy x[at:at+k] into the byte buffer `activations` at `to`."""
    whole = k // LANES * LANES
    for i in range(0, whole, LANES):
        simd.store_f32(activations, to + 4 * i, simd.load_f32(x, at + i))
    for i in range(whole, k):
        simd.poke_f32(activations, to + 4 * i, x[at + i])


def rounded(x: Array) -> Array:
    """x is not rounded."""
    return x.astype(np.float64)


def vector_product(load: Any, size: int) -> Callable[..., None]:
    """`multiply` with one vector, for weights of `size` bytes that `load` widens."""
    record = LANES * size

    @njit(**OPTIONS)
    def multiply(
        weights: Array,
        start: int,
        activations: Array,
        at: int,
        k: int,
        m: int,
        first: int,
        last: int,
        out: Array,
        to: int,
        accumulate: bool,
    ) -> None:
        zero = simd.splat_f32(np.float32(0.0))
        whole = k // 4 * 4
        for block in range(first, last):
            p = start + block * k * record
            a0 = a1 = a2 = a3 = zero
            for i in range(0, whole, 4):
                q, w = at + 4 * i, p + record * i
                x0 = simd.splat_f32(simd.peek_f32(activations, q))
                x1 = simd.splat_f32(simd.peek_f32(activations, q + 4))
                x2 = simd.splat_f32(simd.peek_f32(activations, q + 8))
                x3 = simd.splat_f32(simd.peek_f32(activations, q + 12))
                a0 = simd.fma(load(weights, w), x0, a0)
                a1 = simd.fma(load(weights, w + record), x1, a1)
                a2 = simd.fma(load(weights, w + 2 * record), x2, a2)
                a3 = simd.fma(load(weights, w + 3 * record), x3, a3)
            for i in range(whole, k):
                x0 = simd.splat_f32(simd.peek_f32(activations, at + 4 * i))
                a0 = simd.fma(load(weights, p + record * i), x0, a0)
            total = simd.add(simd.add(a0, a1), simd.add(a2, a3))
            simd.finish(total, out, to + block * LANES, m - block * LANES, accumulate)

    return multiply


def matrix_product(step: Any, size: int, single: Callable[..., None]) -> Callable[..., None]:
    """`multiply` with n vectors, by tiles that grow by `step`; `single` is that with one."""
    record = LANES * size

    @njit(**OPTIONS)
    def tile(
        sums: tiles.Tile,
        weights: Array,
        start: int,
        activations: Array,
        at: int,
        stride: int,
        k: int,
        block: int,
        out: Array,
        to: int,
        pitch: int,
        accumulate: bool,
    ) -> None:
        between = k * record
        p = start + block * between
        for i in range(k):
            sums = step(sums, weights, p + record * i, between, activations, at + 4 * i, stride)
        tiles.put(sums, out, to + block * LANES, pitch, accumulate)

    return tiles.product(tile, single, tiles.PLAIN)


def lookup_of(load: Any, size: int) -> Callable[..., None]:
    """`lookup`, for weights of `size` bytes that `load` widens."""
    record = LANES * size

    @njit(**OPTIONS)
    def lookup(weights: Array, start: int, k: int, row: int, m: int, out: Array, to: int) -> None:
        """Write row `row` of W to out[to:to+k]: an embedding."""
        p = start + row // LANES * k * record
        for i in range(k):
            out[to + i] = simd.lane(load(weights, p + record * i), row % LANES)

    return lookup
