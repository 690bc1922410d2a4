"""A checkpoint -> the flat arrays one forward pass works on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness import arena, plugins
from harness.candidates import tensors
from harness.errors import BadCheckpoint
from harness.mixers.attention.spec import speeds
from harness.records import Array, Checkpoint, Shape, Tensor
from kernels import rope

ALIGN = 64


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
    places, ends, weights, small = _place(checkpoint)
    mixer_rows, ffn_rows, state_size = [], [], 0
    for layer, name in enumerate(shape.mixers):
        mixer = plugins.pick(plugins.mixers(), name, "mixer")
        names = [f"layers.{layer}.mixer.{t.name}" for t in mixer.tensors(shape)]
        row = [places[n] for n in names] + [state_size] + [ends[n] for n in names]
        state_size += _round(mixer.state_values(shape, room))
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
    return Arenas(
        dims=dims,
        weights=weights,
        small=small,
        state=np.zeros(state_size, np.float32),
        scratch=np.zeros(scratch_size, np.float32),
        prepared=np.zeros(prepared_size, np.uint8),
        logits=np.zeros((chunk, shape.vocabulary), np.float32),
        norms=np.array(norms, np.int64),
        mixers=np.array([row + [0] * (widest - len(row)) for row in mixer_rows], np.int64),
        ffns=np.array(ffn_rows, np.int64),
        ends=np.array([places["embedding"], head, places["norm"]], np.int64),
    )


def stored(checkpoint: Checkpoint, name: str, tensor: Tensor) -> Mapping[str, Array]:
    """The arrays of one packed tensor by suffix, checked against its spec."""
    prefix = f"{name}."
    found = {"": checkpoint.arrays[name]} if name in checkpoint.arrays else {}
    found |= {
        key.removeprefix(prefix): array
        for key, array in checkpoint.arrays.items()
        if key.startswith(prefix)
    }
    if "" not in found:
        raise BadCheckpoint(f"{checkpoint.recipe.name}: tensor {name!r} is missing")
    kind = checkpoint.formats.get(name, "f32")
    if (kind == "f32" or not tensor.packed) and found[""].shape != tensor.shape:
        raise BadCheckpoint(
            f"{checkpoint.recipe.name}: tensor {name!r} has shape {found[''].shape}, "
            f"expected {tensor.shape}"
        )
    return found


def _place(
    checkpoint: Checkpoint,
) -> tuple[dict[str, int], dict[str, int], Array, Array]:
    """Places and ends of all tensors, and the two arenas that hold them.

    Each stream is laid out straight into its place, so that loading takes the arena and one
    tensor of memory beside the checkpoint.
    """
    places: dict[str, int] = {}
    ends: dict[str, int] = {}
    packed: dict[str, Mapping[str, Array]] = {}
    values = [_shared(checkpoint.shape)]
    packed_at, small_at = 0, values[0].size
    specs = tensors(checkpoint.shape)
    first: dict[int, str] = {}  # random weights repeat one array in every layer
    for name, tensor in specs.items():
        arrays = stored(checkpoint, name, tensor)
        if tensor.packed:
            packed[name], twin = arrays, first.setdefault(id(arrays[""]), name)
            known = ends[twin] - places[twin] if twin in places else None
            size = known or _stream_bytes(checkpoint, name, tensor, arrays)
            places[name], ends[name] = packed_at, packed_at + size
            packed_at = _round(packed_at + size, ALIGN)
        else:
            array = arrays[""].astype(np.float32).reshape(-1)
            places[name], ends[name] = small_at, small_at + array.size
            values.append(array)
            small_at += array.size
    weights = _aligned(packed_at)
    for name, arrays in packed.items():
        here, twin = weights[places[name] : ends[name]], first[id(arrays[""])]
        if twin == name:
            _fill(here, checkpoint, name, specs[name], arrays)
        else:
            here[:] = weights[places[twin] : ends[twin]]
    return places, ends, weights, np.concatenate(values)


def _shared(shape: Shape) -> Array:
    """What every layer reads, at the places in `small` that harness.arena names."""
    return np.concatenate([np.array([shape.norm_epsilon], np.float32), rope.split(speeds(shape))])


def _aligned(size: int) -> Array:
    """Zeros that begin on a cache line, so that no vector of a stream straddles two."""
    room = np.zeros(size + ALIGN, np.uint8)
    start = -room.ctypes.data % ALIGN
    return room[start : start + size]


def _stream_bytes(
    checkpoint: Checkpoint, name: str, tensor: Tensor, arrays: Mapping[str, Array]
) -> int:
    """Bytes of a tensor in the arena; parts are as far apart as the longest of them needs."""
    if tensor.parts == 1:
        kind = checkpoint.formats.get(name, "f32")
        rows, columns = tensor.shape
        return plugins.pick(plugins.formats(), kind, "format").layout_bytes(rows, columns)
    return tensor.parts * max(s.size for s in _streams(checkpoint, name, tensor, arrays))


def _fill(
    target: Array, checkpoint: Checkpoint, name: str, tensor: Tensor, arrays: Mapping[str, Array]
) -> None:
    pitch = target.size // tensor.parts
    for i, stream in enumerate(_streams(checkpoint, name, tensor, arrays)):
        if tensor.parts == 1 and stream.size != pitch:
            raise BadCheckpoint(
                f"{checkpoint.recipe.name}: tensor {name!r} takes {stream.size} bytes, "
                f"expected {pitch}"
            )
        target[i * pitch : i * pitch + stream.size] = stream


def _streams(
    checkpoint: Checkpoint, name: str, tensor: Tensor, arrays: Mapping[str, Array]
) -> Iterator[Array]:
    """The parts of a tensor, one after the other, in the order its kernel reads them."""
    kind = checkpoint.formats.get(name, "f32")
    form = plugins.pick(plugins.formats(), kind, "format")
    rows, columns = tensor.shape
    step = tensor.shape[tensor.axis] // tensor.parts
    try:
        if tensor.parts == 1:
            yield form.layout(arrays, (rows, columns))
            return
        for i in range(tensor.parts):
            span = slice(i * step, (i + 1) * step)
            cut = (span, slice(None)) if tensor.axis == 0 else (slice(None), span)
            size = (step, columns) if tensor.axis == 0 else (rows, step)
            yield form.layout(form.cut(arrays, *cut), size)
    except (KeyError, ValueError, IndexError) as error:
        raise BadCheckpoint(
            f"{checkpoint.recipe.name}: tensor {name!r} is no valid {kind}: {error}"
        ) from error


def _dims(checkpoint: Checkpoint, room: int, chunk: int, threads: int) -> tuple[Array, int, int]:
    """The dims array, and the sizes of `scratch` (values) and `prepared` (bytes)."""
    shape = checkpoint.shape
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    widest = max(queries + 2 * keys, 4 * shape.width, 2 * shape.hidden)
    mixed = max(queries, shape.width)
    groups = shape.hidden // shape.group + 1
    dims = np.zeros(arena.DIMS, np.int64)
    dims[: arena.ROOM] = (
        shape.width, shape.hidden, shape.heads, shape.kv_heads, shape.head_width,
        shape.channels, shape.group, shape.selector_rank,
    )  # fmt: skip
    dims[arena.ROOM], dims[arena.CHUNK], dims[arena.VOCABULARY] = room, chunk, shape.vocabulary
    at = 0
    for place, pitch, size in (
        (arena.RESIDUAL, None, chunk * shape.width),
        (arena.NORMED, arena.NORMED_PITCH, chunk * shape.width),
        (arena.WIDE, None, chunk * widest),
        (arena.MIXED, None, chunk * mixed),
        (arena.OWN, arena.OWN_PITCH, max(room, 2 * groups + shape.selector_rank)),
        (arena.TABLE, arena.TABLE_PITCH, chunk * shape.head_width),
    ):
        dims[place] = at
        if pitch is not None:
            dims[pitch] = _round(size)
        at += _round(size) * (1 if pitch is None else threads)
    longest = max(shape.width, shape.hidden, mixed)
    # the most any format needs for a vector: float32, or int8 with its header
    dims[arena.PREPARED_PITCH] = chunk * _round(4 * longest + 64, ALIGN)
    return dims, at, int(dims[arena.PREPARED_PITCH]) * threads


def _round(size: int, to: int = 16) -> int:
    return -(-size // to) * to


def shape_bytes(shape: Shape, room: int) -> int:
    """State of a whole stack at a context of `room` tokens [B]."""
    mixers = (plugins.pick(plugins.mixers(), name, "mixer") for name in shape.mixers)
    return sum(4 * mixer.state_values(shape, room) for mixer in mixers)
