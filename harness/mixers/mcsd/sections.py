"""MCSD's other forms in the engine: one section or two of a kind, concatenated, by channels.

The kernel mixes a slope and a decay section; with zeros in place of one it is the other alone.
So each section here is a call of its own, and these forms, which studies compare, need no kernels.
A token's four places in `wide` are: first gate, second gate, first memory, second memory. What a
section reads lies over its gate, so that both lie side by side when the fusion is a concatenation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from numba import njit

from harness import arena
from kernels import mcsd
from kernels.laps import MIX, PROJECT, lap
from kernels.sharing import gather, owner, ready
from kernels.simd import LANES, PART
from kernels.spec import Array
from kernels.team import barrier, share


def form(kinds: Sequence[str], *, concat: bool, blocks: bool) -> Callable[..., None]:
    """The function of one form, for a plan to import.

    kinds: "slope" or "decay", one or two; concat: o reads both rather than their sum; blocks: the
    projections are one matrix a channel
    """
    sections, tensors = len(kinds), 3 * len(kinds) + (2 if "decay" in kinds else 1)
    first_is_slope, second_is_slope = kinds[0] == "slope", kinds[-1] == "slope"

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
        """Add the sections of n normed tokens to the residual.

        offsets: gate and memory of each section, rates of each, gain, o, state; see spec.tensors
        """
        width, channels = dims[arena.WIDTH], dims[arena.CHANNELS]
        w, wide, pitch = width // channels, dims[arena.WIDE], 4 * width
        place, stride = dims[arena.PREPARED_PITCH], activation_bytes(width)
        first, last = share(channels, thread, threads)
        gain, states = small[offsets[3 * sections] :], offsets[tensors]  # gain, if there is one
        normed = dims[arena.NORMED]
        for section in range(sections):
            gate, memory = wide + section * width, wide + (2 + section) * width
            if blocks:
                source = normed + gather(n, thread, threads, block) * dims[arena.NORMED_PITCH]
                mine, size = thread * place, activation_bytes(w)
                for channel in range(first, last):
                    for t in range(n):
                        at = source + t * width + channel * w
                        prepare(scratch, at, w, prepared, mine + t * size)
                    for part in range(2):
                        which, to = 2 * section + part, gate if part == 0 else memory
                        each = (offsets[tensors + 1 + which] - offsets[which]) // channels
                        multiply(
                            weights, offsets[which] + channel * each, prepared, mine, size, n, w, w,
                            0, (w + LANES - 1) // LANES, scratch, to + channel * w, pitch, False,
                        )  # fmt: skip
            else:
                source = normed + owner(n, thread) * dims[arena.NORMED_PITCH]
                mine = ready(
                    prepare, scratch, source, width, width, n, prepared, place, stride, thread,
                    threads, block,
                )  # fmt: skip
                begin, end = share((width + LANES - 1) // LANES, thread, threads)
                for part in range(2):
                    multiply(
                        weights, offsets[2 * section + part], prepared, mine, stride, n, width,
                        width, begin, end, scratch, gate if part == 0 else memory, pitch, False,
                    )  # fmt: skip
            barrier(block, threads)
            lap(thread, block, PROJECT)
            zeros = wide + (3 - section) * width  # the other section's memory: no use now
            for t in range(n):
                for i in range(first * w, last * w):
                    scratch[zeros + t * pitch + i] = 0.0
            rates = small[offsets[2 * sections + section] :]
            here = state[states + section * (2 * width + channels) :]
            g, m, z = scratch[gate:], scratch[memory:], scratch[zeros:]
            if (section == 0 and first_is_slope) or (section == 1 and second_is_slope):
                mcsd.scan(
                    g, m, z, z, pitch, n, channels, w, first, last, rates, rates, z, here, g,
                    pitch,
                )  # fmt: skip
            else:
                own_gain = gain[width:] if section == 1 and not first_is_slope else gain
                mcsd.scan(
                    z, z, g, m, pitch, n, channels, w, first, last, rates, rates, own_gain, here,
                    g, pitch,
                )  # fmt: skip
            barrier(block, threads)
            lap(thread, block, MIX)
        length = width
        if concat:
            length = 2 * width
        elif sections == 2:
            for t in range(n):
                for i in range(first * w, last * w):
                    scratch[wide + t * pitch + i] += scratch[wide + width + t * pitch + i]
            barrier(block, threads)
        stride = activation_bytes(length)
        mine = ready(
            prepare, scratch, wide, pitch, length, n, prepared, place, stride, thread, threads,
            block,
        )  # fmt: skip
        begin, end = share((width + LANES - 1) // LANES, thread, threads)
        multiply(
            weights, offsets[tensors - 1], prepared, mine, stride, n, length, width, begin,
            end, scratch, dims[arena.RESIDUAL], width, True,
        )  # fmt: skip
        barrier(block, threads)

    return cast(Callable[..., None], forward)


forward_blocks = form(("slope", "decay"), concat=False, blocks=True)
forward_concat = form(("slope", "decay"), concat=True, blocks=False)
forward_slope = form(("slope",), concat=False, blocks=False)
forward_decay = form(("decay",), concat=False, blocks=False)
forward_slope_slope = form(("slope", "slope"), concat=False, blocks=False)
forward_decay_decay = form(("decay", "decay"), concat=False, blocks=False)
