"""What the sparse formats share: masks of the weights that are not zero, and those, packed.

Sixteen rows are lanes, as in the dense formats, and a mask of 64 bits says which of four columns'
weights are stored; the CPU spreads them over the lanes as it reads (see expand.py). So a weight
costs one bit, and a stored one its own bits: no column numbers, no gathers, no sums across lanes.

    | block 0, block 1 ... int64: bytes of values before it | padded to 64 B
    | block 0: head | block 1: head | ...     masks, and the scales of a format that has them
    | values of block 0 | of block 1 | ...    in the order of the mask bits
    | 64 B that are read and not used

Sizes: m rows, k columns, z weights stored, n vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from kernels import simd
from kernels.simd import LANES, OPTIONS
from kernels.spec import Argument, Array, Cost, Kernel, Sizes

QUAD = 4  # columns of a mask
MASK = 8  # bytes of it
SPARE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How a matrix with zeros is stored and multiplied; the fields are those of products.Weights.

    draw(m, k, z, random) and layout_bytes(m, k, z) are also told how many weights are stored, and
    multiply is that of n vectors.
    """

    draw: Callable[[int, int, int, np.random.Generator], Array]
    unpack: Callable[[Array, int, int], Array]
    layout_bytes: Callable[[int, int, int], int]
    activation_bytes: Callable[[int], int]
    prepare: Callable[..., None]
    multiply: Callable[..., None]
    rounded: Callable[[Array], Array]
    source: str


# ---- the stream ---------------------------------------------------------------------------------


def by_column(matrix: Array) -> Array:
    """(m,k) -> (blocks, quads, 64): lane 16*j + r is row r, column j of a quad; zeros around."""
    lanes = _quads(matrix, QUAD).transpose(0, 2, 3, 1)
    return lanes.reshape(*lanes.shape[:2], QUAD * LANES)


def by_row(matrix: Array, multiple: int) -> Array:
    """As by_column, but lane 4*r + j; columns are padded to a multiple."""
    lanes = _quads(matrix, multiple).transpose(0, 2, 1, 3)
    return lanes.reshape(*lanes.shape[:2], QUAD * LANES)


def _quads(matrix: Array, multiple: int) -> Array:
    m, k = matrix.shape
    padded = np.zeros((-(-m // LANES) * LANES, -(-k // multiple) * multiple), matrix.dtype)
    padded[:m, :k] = matrix
    return padded.reshape(-1, LANES, padded.shape[1] // QUAD, QUAD)


def masks_of(stored: Array) -> Array:
    """stored (...,64) bool -> (...,8) uint8, bit i for lane i."""
    return np.packbits(stored, axis=-1, bitorder="little")


def stored_of(masks: Array) -> Array:
    """The inverse of masks_of."""
    return np.unpackbits(masks, axis=-1, bitorder="little").astype(bool)


def assemble(heads: Array, sizes: Array, values: Array, room: int) -> Array:
    """heads (blocks, bytes), sizes (blocks,) bytes of values, values uint8 -> the stream.

    room: what the values may take; the rest is zeros.
    """
    before = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    table = np.zeros(table_bytes(heads.shape[0] * LANES), np.uint8)
    table[: before.nbytes] = before.view(np.uint8)
    tail = np.zeros(room - values.size + SPARE, np.uint8)
    return np.concatenate([table, heads.reshape(-1), values, tail])


@njit(**OPTIONS)
def table_bytes(m: int) -> int:
    return ((m + LANES - 1) // LANES + 1 + 7) // 8 * 64


@njit(**OPTIONS)
def places(weights: Array, start: int, m: int, head: int, block: int) -> tuple[int, int]:
    """Bytes where the head and the values of a block begin; a head takes `head` bytes."""
    blocks = (m + LANES - 1) // LANES
    heads = start + table_bytes(m)
    values = heads + blocks * head + simd.peek_i64(weights, start + 8 * block)
    return heads + block * head, values


# ---- the kernel ---------------------------------------------------------------------------------


def product(name: str, s: Storage) -> Kernel:
    """Y = X W^T for n vectors, where z weights of W are stored."""
    prepare, multiply, activation_bytes = s.prepare, s.multiply, s.activation_bytes

    @njit(**OPTIONS)
    def run(weights: Array, x: Array, activations: Array, y: Array, first: int, last: int) -> None:
        n, k = x.shape
        m, stride = y.shape[1], activation_bytes(k)
        flat, out = x.reshape(n * k), y.reshape(n * m)
        for t in range(n):
            prepare(flat, t * k, k, activations, t * stride)
        multiply(weights, 0, activations, 0, stride, n, k, m, first, last, out, 0, m, False)

    def inputs(sizes: Sizes, rng: np.random.Generator) -> tuple[Array, ...]:
        stream = s.draw(sizes["m"], sizes["k"], sizes["z"], rng)
        return stream, rng.standard_normal((sizes["n"], sizes["k"])).astype(np.float32)

    def reference(sizes: Sizes, stream: Array, x: Array) -> tuple[Array, ...]:
        import torch

        weights = torch.from_numpy(s.unpack(stream, sizes["m"], sizes["k"])).double()
        return ((torch.from_numpy(s.rounded(x).copy()) @ weights.T).numpy(),)

    def cost(sizes: Sizes) -> Cost:
        n, m, k, z = (sizes[size] for size in "nmkz")
        return Cost(operations=2 * n * z, moved_bytes=s.layout_bytes(m, k, z) + 4 * n * (m + k))

    return Kernel(
        name=name,
        arguments=(
            Argument(
                "weights", "input", np.uint8, (lambda z: s.layout_bytes(z["m"], z["k"], z["z"]),)
            ),
            Argument("x", "input", np.float32, ("n", "k")),
            Argument(
                "activations", "scratch", np.uint8, (lambda z: z["n"] * activation_bytes(z["k"]),)
            ),
            Argument("y", "output", np.float32, ("n", "m")),
        ),
        example={"n": 5, "m": 40, "k": 50, "z": 900},
        inputs=inputs,
        items=lambda z: -(-z["m"] // LANES),
        run=run,
        reference=reference,
        cost=cost,
        rtol=1e-5,
        nan="undefined",  # a NaN under a weight that is not stored is multiplied by zero, or not
        source=s.source,
        settle=lambda z: {**z, "z": min(z["z"], z["m"] * z["k"])},
    )


def scattered(m: int, k: int, z: int, rng: np.random.Generator) -> Array:
    """(m,k) bool with z places set at random."""
    stored = np.zeros(m * k, bool)
    stored[rng.choice(m * k, z, replace=False)] = True
    return stored.reshape(m, k)
