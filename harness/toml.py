"""A TOML file -> a checked record, or one line on what is wrong in it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.errors import BadInput

T = TypeVar("T")


def read(path: Path, kind: type[T], absent: str) -> T:
    """The file as a record of that kind. Raises BadInput; `absent` says that there is no file."""
    try:
        return TypeAdapter(kind).validate_python(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise BadInput(absent) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise BadInput(f"{path}: {key}: {first['msg']}, got {first['input']!r}") from None
