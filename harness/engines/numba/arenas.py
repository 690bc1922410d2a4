"""A checkpoint -> the flat arrays one forward pass works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness import arena, plugins
from harness.engines.numba.places import ALIGN, aligned, place_tensors, round_up
from harness.records import Array, Checkpoint, Shape
from kernels import attending, choice

LOGITS_BYTES = 2**20  # of all logits of a call that are kept, but at least those of one token


@dataclass(frozen=True, slots=True, kw_only=True)
class Arenas:
    """Everything the engine keeps in memory.

    weights (bytes,) uint8: packed matrices; small (n,) float32: norms, decays, selectors
    embedding, head: their places in weights; norm: place in small
    norms (layers, 2): places in small; mixers, ffns (layers, slots): see harness.arena
    """

    dims: Array
    weights: Array
    small: Array
    state: Array
    scratch: Array
    prepared: Array
    logits: Array
    norms: Array
    mixers: Array
    ffns: Array
    ends: Array  # embedding, head (places in weights), norm (place in small)

    @property
    def resident_bytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in self.__dataclass_fields__)


def build(checkpoint: Checkpoint, room: int, chunk: int, threads: int) -> Arenas:
    """Lay a checkpoint out for contexts of `room` tokens and calls of at most `chunk`.

    Raises BadCheckpoint when a tensor is missing or has another shape than its spec says.
    """
    shape, layers = checkpoint.shape, checkpoint.shape.layers
    places, ends, weights, small = place_tensors(checkpoint)
    mixer_rows, ffn_rows, state_size = [], [], 0
    for layer, name in enumerate(shape.mixers):
        mixer = plugins.pick(plugins.mixers(), name, "mixer")
        names = [f"layers.{layer}.mixer.{t.name}" for t in mixer.tensors(shape)]
        row = [places[n] for n in names] + [state_size] + [ends[n] for n in names]
        state_size += round_up(mixer.state_values(shape, room))
        mixer_rows.append(row)
        ffn = plugins.pick(plugins.ffns(), shape.ffn, "ffn")
        names = [f"layers.{layer}.ffn.{t.name}" for t in ffn.tensors(shape)]
        ffn_rows.append([places[n] for n in names] + [ends[n] for n in names])
    dims, scratch_size, prepared_size = _dims(checkpoint, room, chunk, threads)
    norms = [
        [places[f"layers.{i}.mixer_norm"], places[f"layers.{i}.ffn_norm"]] for i in range(layers)
    ]
    head = places["embedding" if shape.tied else "head"]
    widest = max(len(row) for row in mixer_rows)
    rows = max(1, LOGITS_BYTES // (4 * shape.vocabulary))
    return Arenas(
        dims=dims,
        weights=weights,
        small=small,
        state=aligned(4 * state_size).view(np.float32),
        scratch=aligned(4 * scratch_size).view(np.float32),
        prepared=np.zeros(prepared_size, np.uint8),
        logits=np.zeros((min(chunk, rows), shape.vocabulary), np.float32),
        norms=np.array(norms, np.int64),
        mixers=np.array([row + [0] * (widest - len(row)) for row in mixer_rows], np.int64),
        ffns=np.array(ffn_rows, np.int64),
        ends=np.array([places["embedding"], head, places["norm"]], np.int64),
    )


def repeat(arenas: Arenas, shape: Shape, depth: int) -> None:
    """Make the state of the first tokens that of `depth` tokens, for timing."""
    room = int(arenas.dims[arena.ROOM])
    for row, name in zip(arenas.mixers, shape.mixers, strict=True):
        mixer = plugins.pick(plugins.mixers(), name, "mixer")
        start = row[len(mixer.tensors(shape))]
        layer = arenas.state[start : start + mixer.state_values(shape, room)]
        plugins.half(mixer, "engine").repeat(layer, shape, room, depth)


def _dims(checkpoint: Checkpoint, room: int, chunk: int, threads: int) -> tuple[Array, int, int]:
    """The dims array, and the sizes of `scratch` (values) and `prepared` (bytes)."""
    shape = checkpoint.shape
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    widest = max(queries + 2 * keys, 4 * shape.width, 2 * shape.hidden)
    mixed = max(queries, shape.width)
    groups = shape.hidden // shape.group
    # an ffn of groups keeps scores (chunk, groups), who runs what, and a selector's inner values
    chosen = chunk * groups + choice.table_size(chunk, groups) + shape.selector_rank
    attention = attending.scratch_values(shape.head_width, room)
    dims = np.zeros(arena.DIMS, np.int64)
    dims[: arena.ROOM] = (
        shape.width, shape.hidden, shape.heads, shape.kv_heads, shape.head_width,
        shape.channels, shape.group, shape.selector_rank, min(shape.chosen, groups),
    )  # fmt: skip
    dims[arena.ROOM], dims[arena.CHUNK], dims[arena.VOCABULARY] = room, chunk, shape.vocabulary
    at = 0
    for place, pitch, size in (
        (arena.RESIDUAL, None, chunk * shape.width),
        (arena.NORMED, arena.NORMED_PITCH, chunk * shape.width),
        (arena.WIDE, None, chunk * widest),
        (arena.MIXED, None, chunk * mixed),
        (arena.OWN, arena.OWN_PITCH, max(attention, chosen)),
        (arena.TABLE, arena.TABLE_PITCH, chunk * shape.head_width),
        (arena.TOKENS, None, chunk),
        (arena.RAN, None, chunk),
    ):
        dims[place] = at
        if pitch is not None:
            dims[pitch] = round_up(size)
        at += round_up(size) * (1 if pitch is None else threads)
    # what goes into one product; of a selective ffn: all tokens, those of a group, their neurons
    longest = max(shape.width, shape.hidden, mixed, 2 * shape.width + shape.group + 2 * ALIGN)
    # the most any format needs for a vector: float32, or int8 with its header
    dims[arena.PREPARED_PITCH] = chunk * round_up(4 * longest + 64, ALIGN)
    return dims, at, int(dims[arena.PREPARED_PITCH]) * threads
