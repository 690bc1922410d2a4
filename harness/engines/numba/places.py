"""A checkpoint's tensors -> the two arenas that hold them, and where each of them is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from harness import plugins
from harness.candidates import tensors
from harness.checkpoint import stored
from harness.errors import BadCheckpoint
from harness.mixers.attention.spec import speeds
from harness.records import Array, Checkpoint, Shape, Tensor
from kernels import rope

ALIGN = 64


def place_tensors(
    checkpoint: Checkpoint,
) -> tuple[dict[str, int], dict[str, int], Array, Array]:
    """Places and ends of all tensors, and the two arenas that hold them.

    Each stream is laid out straight into its place, so that loading takes the arena and one
    tensor of memory beside the checkpoint.
    """
    specs = tensors(checkpoint.shape)
    twins = _twins(checkpoint, [n for n, t in specs.items() if t.packed])
    sizes = {n: _part_bytes(checkpoint, n, specs[n]) for n in dict.fromkeys(twins.values())}
    places, pitches, packed_at = _line_up(specs, {n: sizes[twins[n]] for n in twins})
    ends = {n: places[n] + specs[n].parts * pitches[n] for n in twins}
    values = [_shared(checkpoint.shape)]
    small_at = values[0].size
    for name, tensor in specs.items():
        if not tensor.packed:
            array = stored(checkpoint, name, tensor)[""].astype(np.float32)
            array = (array.T if tensor.transposed else array).reshape(-1)
            places[name], ends[name] = small_at, small_at + array.size
            values.append(array)
            small_at += array.size
    weights = aligned(packed_at)
    for name, twin in twins.items():
        parts, size = specs[name].parts, sizes[twin]
        here = [weights[places[name] + i * pitches[name] :][:size] for i in range(parts)]
        if twin == name:
            _fill(here, checkpoint, name, specs[name])
        else:
            for i, target in enumerate(here):
                target[:] = weights[places[twin] + i * pitches[twin] :][:size]
    return places, ends, weights, np.concatenate(values)


def _twins(checkpoint: Checkpoint, names: Sequence[str]) -> dict[str, str]:
    """Name -> the first tensor that is the same array: random weights repeat one in every layer.

    Others are all their own first, and are read when their turn comes.
    """
    if checkpoint.provenance:
        return {name: name for name in names}
    first: dict[int, str] = {}
    specs = tensors(checkpoint.shape)
    return {n: first.setdefault(id(stored(checkpoint, n, specs[n])[""]), n) for n in names}


def _shared(shape: Shape) -> Array:
    """What every layer reads, at the places in `small` that harness.arena names."""
    return np.concatenate([np.array([shape.norm_epsilon], np.float32), rope.split(speeds(shape))])


def _line_up(
    specs: Mapping[str, Tensor], sizes: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int], int]:
    """Places of packed tensors, the distances between their parts, and the end of all of them.

    sizes: bytes of one part. A part starts on a cache line where it has company in its record.
    """
    places: dict[str, int] = {}
    pitches: dict[str, int] = {}
    at = 0
    for (_, record), names in groupby(sizes, lambda n: (n.rpartition(".")[0], specs[n].record)):
        for members in [list(names)] if record else [[name] for name in names]:
            pitch = sum(round_up(sizes[n], ALIGN) for n in members) if record else sizes[members[0]]
            inside = at
            for name in members:
                places[name], pitches[name] = inside, pitch
                inside += round_up(sizes[name], ALIGN)
            at = round_up(at + specs[members[0]].parts * pitch, ALIGN)
    return places, pitches, at


def aligned(size: int) -> Array:
    """Zero bytes that begin on a cache line, so that no vector of a stream straddles two."""
    room = np.zeros(size + ALIGN, np.uint8)
    start = -room.ctypes.data % ALIGN
    return room[start : start + size]


def _part_bytes(checkpoint: Checkpoint, name: str, tensor: Tensor) -> int:
    """Bytes of one part of a tensor in the arena; all parts get what the longest needs."""
    kind = checkpoint.formats.get(name, "f32")
    form = plugins.pick(plugins.formats(), kind, "format")
    if tensor.parts > 1 and form.density < 1:  # parts keep different numbers of weights
        return max(s.size for s in _streams(checkpoint, name, tensor))
    rows, columns = (
        extent // (tensor.parts if axis == tensor.axis else 1)
        for axis, extent in enumerate(tensor.shape)
    )
    return form.layout_bytes(rows, columns)


def _fill(targets: Sequence[Array], checkpoint: Checkpoint, name: str, tensor: Tensor) -> None:
    streams = _streams(checkpoint, name, tensor)
    for target, stream in zip(targets, streams, strict=True):
        if stream.size > target.size or (tensor.parts == 1 and stream.size != target.size):
            raise BadCheckpoint(
                f"{checkpoint.recipe.name}: tensor {name!r} takes {stream.size} bytes, "
                f"expected {target.size}"
            )
        target[: stream.size] = stream


def _streams(checkpoint: Checkpoint, name: str, tensor: Tensor) -> Iterator[Array]:
    """The parts of a tensor, one after the other, in the order its kernel reads them."""
    arrays = stored(checkpoint, name, tensor)
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


def round_up(size: int, to: int = 16) -> int:
    return -(-size // to) * to
