"""Trials <-> a folder of JSON files, one file a trial, named by what went in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness import store
from harness.errors import BadRow
from harness.study.frame import SCHEMA, Trial
from harness.study.plan import Point, key


def file_name(point: Point) -> str:
    """A readable slug and the hash of the inputs, the same on every machine."""
    words = [point.recipe.name, point.recipe.corpus, point.protocol, f"s{point.recipe.seed}"]
    slug = "_".join(re.sub(r"[^a-z0-9.]+", "-", word.lower()).strip("-.") for word in words)
    return f"{slug[:120]}_{key(point)}{store.TRIAL}"


def write(folder: Path, point: Point, trial: Trial) -> Path:
    """Store a trial whole. Raises BadRow on a number that is not finite, CannotWrite."""
    path = folder / file_name(point)
    content = _adapter().dump_python(trial, mode="json")
    if bad := store.not_finite(content):
        raise BadRow(f"{path.name}: {bad} is not a finite number; expected a number or null")
    store.write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return path


def find(folder: Path, point: Point) -> Trial | None:
    """The stored trial of these inputs; None where there is none that can be read."""
    try:
        return load(folder / file_name(point))
    except BadRow:
        return None


def done(folder: Path, point: Point) -> Trial | None:
    """The stored trial, unless it failed: what failed is tried again."""
    found = find(folder, point)
    return None if found is None or found.failed else found


def forget(folder: Path, point: Point) -> bool:
    """Remove the stored trial; whether there was one."""
    path = folder / file_name(point)
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def read(folder: Path, points: Iterable[Point]) -> dict[str, Trial]:
    """The stored trials of these points, by the key of the point."""
    return {key(p): trial for p in points if (trial := find(folder, p)) is not None}


def load(path: Path) -> Trial:
    """One stored trial. Raises BadRow naming the file and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise BadRow(f"{path}: not a whole JSON file ({error}); delete it and run again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise BadRow(f"{path}: not a trial of schema {SCHEMA}; delete it and run again")
    try:
        return _adapter().validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRow(f"{path}: {where}: {first['msg']}") from error


@cache
def _adapter() -> TypeAdapter[Trial]:
    return TypeAdapter(Trial)
