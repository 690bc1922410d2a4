"""A folder of safetensors -> its tensors, read from disk a few rows at a time.

Format: 8 bytes of length, a JSON header with a type, a shape and two offsets a tensor, the data
(github.com/huggingface/safetensors). bfloat16 is the upper half of a float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import BadCheckpoint
from harness.records import Array

DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
BITS = {"F32": 32, "F16": 16, "BF16": 16}
INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 100 * 2**20  # as the safetensors library has it
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor: its name and file, its type as safetensors has it, the place of its data."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    at: int


def files(folder: Path) -> list[Path]:
    """The safetensors files of the model, in order of their names. Raises BadCheckpoint."""
    if (folder / INDEX).exists():
        return sorted({folder / name for name in _index(folder).values()})
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        for pattern in PICKLES:
            for path in sorted(folder.glob(pattern)):
                raise BadCheckpoint(
                    f"{path} is a pickle, which can run code as it loads; "
                    f"this engine reads safetensors only"
                )
        raise BadCheckpoint(f"{folder} holds no *.safetensors")
    return found


def tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder by its name there. Raises BadCheckpoint."""
    found: dict[str, Stored] = {}
    for path in files(folder):
        for name, stored in _header(path).items():
            if name in found:
                raise BadCheckpoint(f"{path}: tensor {name!r} is in {found[name].path.name} too")
            found[name] = stored
    if (folder / INDEX).exists():
        for name, shard in _index(folder).items():
            if name not in found or found[name].path.name != shard:
                raise BadCheckpoint(f"{folder / INDEX}: tensor {name!r} is not in {shard}")
    return found


def rows(stored: Stored, span: slice) -> Array:
    """Rows of a tensor as float32. Raises BadCheckpoint when they are not there or not finite."""
    first, last, _ = span.indices(stored.shape[0])
    columns = math.prod(stored.shape[1:])
    try:
        with stored.path.open("rb") as file:
            file.seek(stored.at + first * columns * BITS[stored.dtype] // 8)
            raw = np.fromfile(file, DTYPES[stored.dtype], (last - first) * columns)
    except OSError as error:
        raise BadCheckpoint(f"{stored.path} cannot be read: {error.strerror or error}") from None
    if raw.size != (last - first) * columns:
        raise BadCheckpoint(f"{stored.path} is truncated: tensor {stored.name!r} is not all there")
    if stored.dtype == "BF16":
        values = (raw.astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.astype(np.float32)
    if not np.isfinite(values).all():
        raise BadCheckpoint(
            f"{stored.path}: tensor {stored.name!r} holds values that are not finite"
        )
    return values.reshape(last - first, *stored.shape[1:])


def _index(folder: Path) -> Mapping[str, str]:
    """Tensor -> shard. A shard is a plain name: it cannot lead out of the folder."""
    path = folder / INDEX
    try:
        found = json.loads(path.read_text("utf-8"))["weight_map"]
        pairs = {str(name): str(shard) for name, shard in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadCheckpoint(f"{path} is malformed: expected an object with a weight_map") from None
    for shard in pairs.values():
        if "/" in shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise BadCheckpoint(f"{path}: {shard!r} is not the name of a safetensors file here")
    return pairs


def _header(path: Path) -> dict[str, Stored]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size - 8
            if not 2 <= length <= min(size, LONGEST_HEADER):
                raise BadCheckpoint(f"{path} is truncated or no safetensors file")
            entries = json.loads(file.read(length))
        return {
            name: _stored(path, name, entry, 8 + length, size - length)
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except FileNotFoundError:
        raise BadCheckpoint(f"{path} does not exist, but the index names it") from None
    except OSError as error:
        raise BadCheckpoint(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadCheckpoint(f"{path} has a malformed header") from None


def _stored(path: Path, name: str, entry: Mapping[str, Any], start: int, size: int) -> Stored:
    dtype, extents, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in DTYPES:
        raise BadCheckpoint(
            f"{path}: tensor {name!r} is stored as {dtype}; known: {', '.join(DTYPES)}"
        )
    whole = all(type(x) is int and x >= 0 for x in (*extents, first, last))
    if not whole or last - first != math.prod(extents) * BITS[dtype] // 8:
        raise BadCheckpoint(f"{path}: tensor {name!r} has a malformed entry")
    if last > size:
        raise BadCheckpoint(
            f"{path} is truncated: tensor {name!r} ends at byte {last} of {size} that are there"
        )
    return Stored(name, path, dtype, extents, start + first)
