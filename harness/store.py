"""Rows <-> a folder of JSON files, one file a row, named by what went in."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.errors import BadRow, CannotWrite
from harness.records import SCHEMA, Failed, Projected, Row

TRIAL = ".trial.json"  # how the files of a study's rows end, which are no rows of a device


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The inputs of a row: equal keys mean that measuring again would tell nothing new."""

    candidate: str  # for people; the two hashes say which weights
    recipe_hash: str
    checkpoint_hash: str
    workload: str
    engine: str
    threads: int
    host: str  # "" where no machine was involved
    device: str
    kernel_hash: str = ""
    quick: bool = False


def key_of(row: Row) -> Key:
    return Key(
        candidate=row.candidate,
        recipe_hash=row.recipe_hash,
        checkpoint_hash=row.checkpoint_hash,
        workload=row.workload,
        engine=row.engine,
        threads=row.threads,
        host=row.environment.host if row.environment else "",
        device=row.device,
        kernel_hash=row.kernel_hash,
        quick=row.quick,
    )


def file_name(key: Key) -> str:
    """A readable slug and a hash of the inputs, the same on every machine."""
    inputs = [key.recipe_hash, key.checkpoint_hash, key.workload, key.engine, key.threads]
    inputs += [key.host, key.device, key.kernel_hash, key.quick]
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]
    words = [key.candidate, key.workload, f"{key.threads}t", key.host or key.device]
    slug = "_".join(re.sub(r"[^a-z0-9.]+", "-", word.lower()).strip("-.") for word in words)
    return f"{slug[:120]}_{digest}.json"


def write(folder: Path, row: Row) -> Path:
    """Store a row and return its file; an older file of the same inputs is replaced whole.

    Raises BadRow on a projected time or a number that is not finite, CannotWrite on a full disk.
    """
    if isinstance(row.seconds, Projected):
        raise BadRow(f"{row.candidate} on {row.device}: projections are computed, never stored")
    path = folder / file_name(key_of(row))
    content = _adapter().dump_python(row, mode="json")
    if bad := not_finite(content):
        raise BadRow(f"{path.name}: {bad} is not a finite number; expected a number or null")
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file whole or leave it as it was. Raises CannotWrite."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide rows that others should copy
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error}; what was there before is untouched, "
            f"make room or choose another folder, then run the same command again"
        ) from error


def read(folder: Path) -> tuple[list[Row], list[str]]:
    """Every row below a folder, and one line for each file that is not one.

    Where several files have the same inputs the newest is kept, so that folders of other machines
    merge by being copied in. An absent folder has no rows.
    """
    found: dict[str, Row] = {}
    problems = []
    for path in sorted(folder.rglob("*.json")):
        if path.name.endswith(TRIAL):
            continue
        try:
            row = load(path)
        except BadRow as error:
            problems.append(str(error))
            continue
        name = file_name(key_of(row))
        if name not in found or _started(row) >= _started(found[name]):
            found[name] = row
    return list(found.values()), problems


def load(path: Path) -> Row:
    """One stored row. Raises BadRow naming the file, what was found and what would be right."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise BadRow(f"{path}: not a whole JSON file ({error}); delete it and run again") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise BadRow(f"{path}: not a row; expected a JSON object with 'schema': {SCHEMA}")
    if content["schema"] != SCHEMA:
        raise BadRow(
            f"{path}: schema {content['schema']!r}, expected {SCHEMA}; "
            f"measure it again with this version, or read it with the version that wrote it"
        )
    if bad := not_finite(content):
        raise BadRow(f"{path}: {bad} is not a finite number; expected a number or null")
    try:
        return _adapter().validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = repr(first["input"])[:60] if first["type"] != "missing" else "nothing"
        raise BadRow(f"{path}: {where}: {first['msg']}, found {found}") from error


def has(folder: Path, key: Key) -> bool:
    """Whether a readable row of these inputs is stored anywhere below the folder."""
    name = file_name(key)
    for path in (folder / name, *folder.glob(f"**/{name}")):
        try:
            load(path)
        except BadRow:
            continue
        return True
    return False


def latest(rows: Iterable[Row]) -> list[Row]:
    """One row a point: with a time before failed, full before quick, then the newest."""
    best: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = key_of(row)
        point = (key.recipe_hash, key.workload, key.engine, str(key.threads), key.host, key.device)
        rival = best.get(point)
        if rival is None or _worth(row) >= _worth(rival):
            best[point] = row
    return list(best.values())


def _worth(row: Row) -> tuple[bool, bool, str]:
    return not isinstance(row.seconds, Failed), not row.quick, _started(row)


def refuse_quick(rows: Sequence[Row]) -> None:
    """Raise BadRow when a row has too few samples to be published."""
    if quick := [row for row in rows if row.quick]:
        raise BadRow(
            f"{len(quick)} of {len(rows)} rows were made with --quick "
            f"(first: {quick[0].candidate}, {quick[0].workload}); run the sweep without it"
        )


def json_schema() -> dict[str, Any]:
    """JSON Schema of a stored row, for programs in other languages."""
    return _adapter().json_schema()


@cache
def _adapter() -> TypeAdapter[Row]:
    return TypeAdapter(Row)


def _started(row: Row) -> str:
    return row.environment.started if row.environment else ""


def not_finite(content: object, where: str = "") -> str:
    """Path of the first NaN or infinity inside parsed JSON, or ""."""
    if isinstance(content, float):
        return "" if math.isfinite(content) else where
    inside: Iterable[tuple[object, object]] = ()
    if isinstance(content, dict):
        inside = content.items()
    elif isinstance(content, list):
        inside = enumerate(content)
    for name, value in inside:
        if bad := not_finite(value, f"{where}.{name}".lstrip(".")):
            return bad
    return ""
