"""cores.toml -> the cores that code can be made for."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import UnknownName

FILE = Path(__file__).with_name("cores.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """A core by LLVM's name; `profile` is its name in device profiles."""

    name: str
    arch: str  # aarch64 or x86_64
    features: tuple[str, ...]  # that kernels ask for
    model: str  # LLVM's scheduling model, which other cores may share
    profile: str

    @property
    def triple(self) -> str:
        return f"{self.arch}-unknown-linux-gnu"

    @property
    def flags(self) -> str:
        """The features as LLVM writes them."""
        return ",".join(f"+{feature}" for feature in self.features)


@cache
def known() -> Mapping[str, Core]:
    raw = tomllib.loads(FILE.read_text("utf-8"))
    return {
        name: Core(
            name=name,
            arch=entry["arch"],
            features=tuple(entry["features"]),
            model=entry["model"],
            profile=entry.get("profile", name),
        )
        for name, entry in raw.items()
    }


def pick(name: str) -> Core:
    """The core of this name. Raises UnknownName with the nearest names."""
    if name not in known():
        close = difflib.get_close_matches(name, known(), n=5, cutoff=0.5) or sorted(known())
        raise UnknownName(f"unknown CPU {name!r}; close: {', '.join(close)} (in {FILE.name})")
    return known()[name]
