"""A candidate's weights <-> one safetensors file in the canonical layout."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import BadCheckpoint, HarnessError
from harness.records import Array, Checkpoint, Recipe, Shape, Tensor

VERSION = 1
# Fields of Shape that came after the first hashes: they count only where they are set.
YOUNGER = frozenset({"cache", "chosen", "norm_epsilon", "rope_scaling"})
SHIPPED = Path(__file__).parent / "trained"


def folder() -> Path:
    """Where this user's checkpoints, data and compiled plans are kept."""
    if home := os.environ.get("EDGEWISE_CACHE"):
        return Path(home)
    import platformdirs  # noqa: PLC0415 - a timed worker is always told by the environment

    return Path(platformdirs.user_cache_dir("edgewise"))


def recipe_hash(recipe: Recipe) -> str:
    """Of what the recipe sets, so that a new field with a default renames no old checkpoint."""
    inputs = {**_set(recipe), "shape": _set(recipe.shape)}
    if recipe.origin:
        inputs["origin"] = recipe.origin.files
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _set(record: Recipe | Shape) -> dict[str, object]:
    """Fields that differ from their default."""
    values = asdict(record)
    return {f.name: values[f.name] for f in fields(record) if values[f.name] != f.default}


def checkpoint_hash(checkpoint: Checkpoint) -> str:
    """Of the bytes of every tensor, so that two files with equal weights are the same thing."""
    shape = asdict(checkpoint.shape)
    for name in YOUNGER.difference(_set(checkpoint.shape)):
        del shape[name]
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for name in sorted(checkpoint.arrays):
        array = np.ascontiguousarray(checkpoint.arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()[:16]


def file_name(recipe: Recipe) -> str:
    slug = recipe.name.removeprefix("./").replace("@", "_")
    slug = re.sub(r"[^A-Za-z0-9._-]", "-", slug)
    return f"{slug}-{recipe_hash(recipe)}.safetensors"


def path_of(recipe: Recipe) -> Path:
    return folder() / "checkpoints" / file_name(recipe)


def find(recipe: Recipe) -> Path | None:
    """The checkpoint of this recipe: the user's own first, then the one shipped."""
    candidates = (path_of(recipe), SHIPPED / file_name(recipe))
    return next((path for path in candidates if path.exists()), None)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically; a full disk or a kill leaves the old file or none."""
    from safetensors.numpy import save_file  # noqa: PLC0415

    header = {
        "version": VERSION,
        "recipe": asdict(checkpoint.recipe),
        "shape": asdict(checkpoint.shape),
        "formats": dict(checkpoint.formats),
        "provenance": dict(checkpoint.provenance),
    }
    arrays = {name: np.ascontiguousarray(a) for name, a in checkpoint.arrays.items()}
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".saving-")
        os.close(handle)
        save_file(arrays, temporary, metadata={"edgewise": json.dumps(header)})
        os.replace(temporary, path)
    except Exception as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise HarnessError(f"cannot save {path}: {error}; nothing was changed") from error


def load(path: Path) -> Checkpoint:
    """Read and check a file that may come from a stranger. Raises BadCheckpoint."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415
    from safetensors import safe_open  # noqa: PLC0415

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "edgewise" not in metadata:
                raise BadCheckpoint(f"{path} is not a checkpoint of Edgewise: no 'edgewise' entry")
            header = json.loads(metadata["edgewise"])
            if header.get("version") != VERSION:
                found = header.get("version")
                raise BadCheckpoint(f"{path} has version {found}, expected {VERSION}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checkpoint = Checkpoint(
            recipe=TypeAdapter(Recipe).validate_python(header["recipe"]),
            shape=TypeAdapter(Shape).validate_python(header["shape"]),
            arrays=arrays,
            formats=TypeAdapter(dict[str, str]).validate_python(header["formats"]),
            provenance=TypeAdapter(dict[str, Any]).validate_python(header["provenance"]),
        )
    except BadCheckpoint:
        raise
    except FileNotFoundError:
        raise BadCheckpoint(f"{path} does not exist; `edgewise train` makes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([error.title, *(str(part) for part in first["loc"])])
        raise BadCheckpoint(f"{path} is malformed: {place}: {first['msg']}") from error
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BadCheckpoint(f"{path} is truncated or malformed: {reason}") from error
    check_finite(checkpoint, str(path))
    return checkpoint


def stored(checkpoint: Checkpoint, name: str, tensor: Tensor) -> Mapping[str, Array]:
    """The arrays of one packed tensor by suffix, checked against its spec."""
    prefix = f"{name}."
    found = {"": checkpoint.arrays[name]} if name in checkpoint.arrays else {}
    found |= {
        key.removeprefix(prefix): checkpoint.arrays[key]
        for key in checkpoint.arrays
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


def check_finite(checkpoint: Checkpoint, where: str) -> None:
    """Raise BadCheckpoint at the first tensor that holds a NaN or an infinity."""
    for name, array in checkpoint.arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise BadCheckpoint(f"{where}: tensor {name!r} holds {bad} values that are not finite")
