"""Names -> the things files define: each public module of a plugin folder has a SPEC."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from harness import foreign
from harness.errors import BadPlugin, UnknownName
from harness.records import Corpus, Engine, Ffn, Format, Metric, Mixer, Transform

foreign.refuse()  # before the first import that only our package can satisfy

from kernels.spec import Kernel  # noqa: E402

T = TypeVar("T")
PLUGINS = "EDGEWISE_PLUGINS"  # a user's own folder, laid out like this package


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry of that name, or UnknownName with the names there are."""
    if name not in table:
        raise UnknownName(f"unknown {what} {name!r}; known: {', '.join(sorted(table))}")
    return table[name]


@cache
def kernel_specs() -> Mapping[str, Kernel]:
    return load("kernels", Kernel)


@cache
def mixers() -> Mapping[str, Mixer]:
    return load("harness.mixers", Mixer)


@cache
def ffns() -> Mapping[str, Ffn]:
    return load("harness.ffns", Ffn)


@cache
def corpora() -> Mapping[str, Corpus]:
    return load("harness.corpora", Corpus)


@cache
def metrics() -> Mapping[str, Metric]:
    return load("harness.metrics", Metric)


@cache
def engines() -> Mapping[str, Engine]:
    return load("harness.engines", Engine)


@cache
def formats() -> Mapping[str, Format]:
    return load("harness.formats", Format)


@cache
def transforms() -> Mapping[str, Transform]:
    return load("harness.transforms", Transform)


def half(plugin: Mixer | Ffn, part: str) -> ModuleType:
    """The reference or engine module beside a mixer's or ffn's spec."""
    folder, kind = (plugin.folder, "mixers") if isinstance(plugin, Mixer) else (plugin.name, "ffns")
    if (path := _user_folder(kind)) and (path / folder / f"{part}.py").exists():
        return _from_file(path / folder / f"{part}.py", f"edgewise_plugins.{kind}.{folder}.{part}")
    return importlib.import_module(f"harness.{kind}.{folder}.{part}")


def load(package: str, kind: type[T]) -> dict[str, T]:
    """Every SPEC (and VARIANTS) in a package, then in the user's folder of the same name."""
    found: dict[str, T] = {}
    home = importlib.import_module(package)
    for info in pkgutil.iter_modules(home.__path__):
        if info.name.startswith("_") or info.name in getattr(home, "HELPERS", ()):
            continue
        name = f"{package}.{info.name}" + (".spec" if info.ispkg else "")
        _add(found, importlib.import_module(name), info.name, kind)
    if folder := _user_folder(package.split(".")[-1]):
        for path in sorted([*folder.glob("[!_]*.py"), *folder.glob("[!_]*/spec.py")]):
            stem = path.parent.name if path.name == "spec.py" else path.stem
            name = f"edgewise_plugins.{folder.name}.{stem}"
            _add(found, _from_file(path, name), stem, kind)
    return found


def _add(found: dict[str, T], module: ModuleType, stem: str, kind: type[T]) -> None:
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, kind) or getattr(spec, "name", None) != stem:
        raise BadPlugin(
            f"{module.__file__} must define SPEC = {kind.__name__}(name={stem!r}, ...); "
            f"found {spec!r}"
        )
    for entry in (spec, *getattr(module, "VARIANTS", ())):
        if entry.name in found:
            raise BadPlugin(f"{module.__file__} defines {entry.name!r}, which exists already")
        found[entry.name] = entry


def _user_folder(kind: str) -> Path | None:
    root = os.environ.get(PLUGINS)
    if not root:
        return None
    if not Path(root).is_dir():
        raise BadPlugin(f"the plugin folder {root!r} does not exist")
    folder = Path(root).resolve() / kind
    return folder if folder.is_dir() else None


def _from_file(path: Path, name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadPlugin(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BadPlugin(f"{path} fails to load: {type(error).__name__}: {error}") from error
    return module
