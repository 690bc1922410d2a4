"""MCSD in the engine: project, run the recurrence on its flat state, project back."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from harness import arena
from harness.mixers.mcsd.sections import forward_blocks as forward_blocks
from harness.mixers.mcsd.sections import forward_concat as forward_concat
from harness.mixers.mcsd.sections import forward_decay as forward_decay
from harness.mixers.mcsd.sections import forward_decay_decay as forward_decay_decay
from harness.mixers.mcsd.sections import forward_slope as forward_slope
from harness.mixers.mcsd.sections import forward_slope_slope as forward_slope_slope
from harness.records import Shape
from kernels import mcsd
from kernels.laps import MIX, PROJECT, lap
from kernels.sharing import gather, owner, ready
from kernels.simd import LANES, OPTIONS, PART
from kernels.spec import Array
from kernels.team import barrier, share

U, V, F, E, SLOPE, DECAY, GAIN, O = range(8)  # places of the tensors in the spec
STATE, PAPER_STATE = 8, 7  # after the last tensor; the paper's form has no o
PAPER_END = 8  # then where each tensor ends


@njit(**OPTIONS)
def begin(
    thread: int, n: int, depth: int, dims: Array, small: Array, state: Array, scratch: Array
) -> None:
    """Nothing is shared by the layers."""


def repeat(layer: Array, shape: Shape, room: int, depth: int) -> None:
    """The state of any depth is one token's."""


@njit(**PART)
def forward(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    activation_bytes: Callable[[int], int],
    thread: int,
    threads: int,
    block: Array,
    n: int,
    depth: int,
    dims: Array,
    weights: Array,
    small: Array,
    offsets: Array,
    state: Array,
    scratch: Array,
    prepared: Array,
) -> None:
    """Add MCSD of n normed tokens to the residual. offsets: u v f e slope decay gain o, state."""
    width = dims[arena.WIDTH]
    wide, pitch = dims[arena.WIDE], 4 * width
    normed = dims[arena.NORMED] + owner(n, thread) * dims[arena.NORMED_PITCH]
    place, stride = dims[arena.PREPARED_PITCH], activation_bytes(width)
    mine = ready(
        prepare, scratch, normed, width, width, n, prepared, place, stride, thread, threads, block
    )
    first, last = share((width + LANES - 1) // LANES, thread, threads)
    for part in range(4):
        multiply(
            weights, offsets[part], prepared, mine, stride, n, width, width, first, last,
            scratch, wide + part * width, pitch, False,
        )  # fmt: skip
    barrier(block, threads)
    lap(thread, block, PROJECT)
    mix(thread, threads, n, dims, small, offsets, offsets[STATE], state, scratch)
    barrier(block, threads)
    lap(thread, block, MIX)

    mine = ready(
        prepare, scratch, wide, pitch, width, n, prepared, place, stride, thread, threads, block
    )
    multiply(
        weights, offsets[O], prepared, mine, stride, n, width, width, first, last,
        scratch, dims[arena.RESIDUAL], width, True,
    )  # fmt: skip
    barrier(block, threads)


@njit(**PART)
def forward_paper(
    prepare: Callable[..., None],
    multiply: Callable[..., None],
    activation_bytes: Callable[[int], int],
    thread: int,
    threads: int,
    block: Array,
    n: int,
    depth: int,
    dims: Array,
    weights: Array,
    small: Array,
    offsets: Array,
    state: Array,
    scratch: Array,
    prepared: Array,
) -> None:
    """The published form: each channel projects its own slice, and there is no way back.

    The four projections are stored as one matrix (w, w) a channel, one after the other.
    """
    width, channels = dims[arena.WIDTH], dims[arena.CHANNELS]
    w, wide, pitch = width // channels, dims[arena.WIDE], 4 * width
    reader = gather(n, thread, threads, block)
    normed = dims[arena.NORMED] + reader * dims[arena.NORMED_PITCH]
    mine, stride = thread * dims[arena.PREPARED_PITCH], activation_bytes(w)
    first, last = share(channels, thread, threads)
    for channel in range(first, last):
        for t in range(n):
            at = normed + t * width + channel * w
            prepare(scratch, at, w, prepared, mine + t * stride)
        for part in range(4):
            matrix_bytes = (offsets[PAPER_END + part] - offsets[part]) // channels
            multiply(
                weights, offsets[part] + channel * matrix_bytes, prepared, mine, stride, n, w, w,
                0, (w + LANES - 1) // LANES, scratch, wide + part * width + channel * w, pitch,
                False,
            )  # fmt: skip
    lap(thread, block, PROJECT)
    # a thread mixes the channels it projected, so nobody has to wait
    mix(thread, threads, n, dims, small, offsets, offsets[PAPER_STATE], state, scratch)
    # every thread reads the whole residual to norm it; only then may it change
    barrier(block, threads)
    residual = dims[arena.RESIDUAL]
    for t in range(n):
        for i in range(first * w, last * w):
            scratch[residual + t * width + i] += scratch[wide + t * pitch + i]
    barrier(block, threads)
    lap(thread, block, MIX)


@njit(**OPTIONS)
def mix(
    thread: int,
    threads: int,
    n: int,
    dims: Array,
    small: Array,
    offsets: Array,
    start: int,
    state: Array,
    scratch: Array,
) -> None:
    """The recurrence over n tokens for this thread's channels, written over u.

    start: place of the layer's state
    """
    width, channels, wide = dims[arena.WIDTH], dims[arena.CHANNELS], dims[arena.WIDE]
    first, last = share(channels, thread, threads)
    u, v = scratch[wide:], scratch[wide + width :]
    f, e = scratch[wide + 2 * width :], scratch[wide + 3 * width :]
    slope, decay, gain = small[offsets[SLOPE] :], small[offsets[DECAY] :], small[offsets[GAIN] :]
    mcsd.scan(
        u, v, f, e, 4 * width, n, channels, width // channels, first, last, slope, decay, gain,
        state[start:], u, 4 * width,
    )  # fmt: skip
