"""The gated ffn in the engine."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness import arena
from kernels import glu
from kernels.sharing import owner, ready
from kernels.simd import LANES, PART
from kernels.spec import Array
from kernels.team import barrier, share


@njit(**PART)
def forward(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    activation_bytes: Callable[[int], int],
    thread: int,
    threads: int,
    block: Array,
    n: int,
    dims: Array,
    weights: Array,
    small: Array,
    offsets: Array,
    scratch: Array,
    prepared: Array,
) -> None:
    """Add the ffn of n normed tokens to the residual. offsets: gate up down."""
    width, hidden = dims[arena.WIDTH], dims[arena.HIDDEN]
    wide, pitch = dims[arena.WIDE], 2 * hidden
    normed = dims[arena.NORMED] + owner(n, thread) * dims[arena.NORMED_PITCH]
    place, stride = dims[arena.PREPARED_PITCH], activation_bytes(width)
    mine = ready(
        prepare, scratch, normed, width, width, n, prepared, place, stride, thread, threads, block
    )
    first, last = share((hidden + LANES - 1) // LANES, thread, threads)
    for part in range(2):
        multiply(
            weights, offsets[part], prepared, mine, stride, n, width, hidden, first, last,
            scratch, wide + part * hidden, pitch, False,
        )  # fmt: skip
    begin, end = first * LANES, min(last * LANES, hidden)
    for t in range(n):  # the rows this thread projected itself, so nobody has to wait
        gate = wide + t * pitch + begin
        glu.combine(scratch, gate, scratch, gate + hidden, end - begin, scratch, gate)
    barrier(block, threads)

    stride = activation_bytes(hidden)
    mine = ready(
        prepare, scratch, wide, pitch, hidden, n, prepared, place, stride, thread, threads, block
    )
    first, last = share((width + LANES - 1) // LANES, thread, threads)
    multiply(
        weights, offsets[2], prepared, mine, stride, n, hidden, width, first, last,
        scratch, dims[arena.RESIDUAL], width, True,
    )  # fmt: skip
    barrier(block, threads)
