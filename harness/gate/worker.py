"""Time kernels and decode steps of one tree on request: the far end of duel.py's pipes.

A script, never imported: the working tree's copy serves both trees, so that one instrument reads
both, with the tree to be timed first on PYTHONPATH. It imports no torch and nothing of this
package. Requests and answers are one JSON object a line; what fails answers {"error": ...}.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kernels.spec import Kernel

DEPTH, TOKEN = 32, 7  # of the decode step that is timed
PAGE, LINE = 4096, 64


@dataclass(frozen=True, slots=True)
class Item:
    """Something to time: `again(loops)` runs it, `rewind()` puts its state back."""

    sizes: Mapping[str, int]
    again: Callable[[int], None]
    rewind: Callable[[], None]


Build = Callable[[Mapping[str, int]], Item]  # at the nearest sizes it can have


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    root, cache = Path(sys.argv[1]), Path(sys.argv[2])
    loaded: dict[str, Build] = {}
    ready: dict[str, Item] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(request, loaded, ready, root, cache)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps(answer), file=answers, flush=True)


def _answer(
    request: Mapping[str, Any],
    loaded: dict[str, Build],
    ready: dict[str, Item],
    root: Path,
    cache: Path,
) -> dict[str, Any]:
    what, item = request["do"], request.get("item", "")
    if what == "load":  # compile
        _check(root)
        build, example = _step(item) if ":" in item else _kernel(item, cache)
        ready[item] = build(example)
        loaded[item] = build
        return {"sizes": example}
    if what == "set":
        ready[item] = loaded[item](request["sizes"])
        return {"sizes": ready[item].sizes}
    if what == "start":  # from here on only timing
        if request["cpus"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, request["cpus"])
        if "torch" in sys.modules:
            raise RuntimeError("a timing worker must not carry torch")
        gc.collect()
        gc.freeze()
        gc.disable()
        return {}
    return {"seconds": _time(ready[item], request["loops"])}


def _check(root: Path) -> None:
    """An old commit may lack a package, and an installed one would answer in its place."""
    for package in ("kernels", "harness"):
        module = importlib.import_module(package)
        if not Path(str(module.__file__)).resolve().is_relative_to(root.resolve()):
            raise ImportError(f"no package {package!r} there")


def _time(item: Item, loops: int) -> float:
    """Seconds of one call, from the state of the first one, with warm caches."""
    clock = _clock()
    item.rewind()
    item.again(1 + loops // 8)
    item.rewind()
    begin = clock()
    item.again(loops)
    return (clock() - begin) / loops


def _clock() -> Callable[[], float]:
    """CPU time of this thread where it is fine enough: time spent waiting for others' is no loss.

    Both clocks read the same on an idle machine, as everything timed here is one thread computing.
    """
    fine = time.get_clock_info("thread_time").resolution <= 1e-6
    return time.thread_time if fine else time.perf_counter


# ---- kernels -------------------------------------------------------------------------------


def _kernel(name: str, cache: Path) -> tuple[Build, dict[str, int]]:
    from harness import plugins  # noqa: PLC0415
    from kernels import spec  # noqa: PLC0415

    kernel = plugins.pick(plugins.kernel_specs(), name, "kernel")
    many = _many(kernel, cache)

    def build(wanted: Mapping[str, int]) -> Item:
        sizes = dict(kernel.settle(wanted))
        given = kernel.inputs(sizes, np.random.default_rng(0))
        by_name = dict(zip((a.name for a in kernel.of("input", "state")), given, strict=True))
        rest = kernel.of("scratch", "output")
        blank = spec.allocate(kernel, sizes, "scratch", "output")
        by_name |= dict(zip((a.name for a in rest), blank, strict=True))
        arrays = _aligned([by_name[a.name] for a in kernel.arguments])
        spec.check(kernel, sizes, arrays)
        last = kernel.items(sizes)
        kept = [
            (array, array.copy())
            for argument, array in zip(kernel.arguments, arrays, strict=True)
            if argument.role == "state"
        ]

        def rewind() -> None:
            for array, before in kept:
                array[...] = before

        item = Item(sizes, lambda loops: many(loops, *arrays, 0, last), rewind)
        item.again(1)
        return item

    return build, dict(kernel.example)


def _many(kernel: Kernel, cache: Path) -> Callable[..., None]:
    """The kernel in a compiled loop, kept on disk under the hash of all kernel sources.

    The module lies outside the tree, since Numba's cache goes by the path of a file, and a base
    tree has a new path each time.
    """
    names = ", ".join(a.name for a in kernel.arguments)
    text = f"""from numba import njit

from kernels.{kernel.name} import SPEC

run = SPEC.run


@njit(cache=True, nogil=True)
def many(loops, {names}, first, last):
    for _ in range(loops):
        run({names}, first, last)
"""
    folder = cache / _fingerprint(Path(sys.modules["kernels"].__path__[0]))
    path = folder / f"{kernel.name}.py"
    if not path.exists() or path.read_text("utf-8") != text:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    found = importlib.util.spec_from_file_location(f"gate_{kernel.name}", path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(found)
    sys.modules[module.__name__] = module
    found.loader.exec_module(module)
    many: Callable[..., None] = module.many
    return many


def _fingerprint(folder: Path) -> str:
    """Hash of what decides the machine code; Numba itself sees to the CPU."""
    digest = hashlib.sha256(repr((sys.version, os.environ.get("EDGEWISE_PLAIN"))).encode())
    for library in ("numba", "llvmlite", "numpy"):
        digest.update(importlib.metadata.version(library).encode())
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _aligned(arrays: Sequence[Any]) -> list[Any]:
    """Copies at the same offsets from a page in every process: placement is worth 10 % and more."""
    offsets, total = [], 0
    for array in arrays:
        offsets.append(total)
        total += -(-array.nbytes // LINE) * LINE + LINE
    pool = np.zeros(total + PAGE, np.uint8)
    pool = pool[-pool.ctypes.data % PAGE :]
    placed = []
    for array, at in zip(arrays, offsets, strict=True):
        view = pool[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        placed.append(view)
    return placed


# ---- decode steps --------------------------------------------------------------------------


def _step(name: str) -> tuple[Build, dict[str, int]]:
    from harness import candidates  # noqa: PLC0415
    from harness.engines.numba import random, session  # noqa: PLC0415

    recipe = candidates.parse(name, tokens=0)

    def build(sizes: Mapping[str, int]) -> Item:
        opened = session.open_session(random.checkpoint(recipe), room=2 * DEPTH)
        session.feed(opened, np.arange(DEPTH))
        before = opened.arenas.state.copy()

        def again(loops: int) -> None:
            for _ in range(loops):
                opened.depth = DEPTH
                session.step(opened, TOKEN)

        def rewind() -> None:
            opened.arenas.state[...] = before

        again(1)
        return Item(sizes, again, rewind)

    return build, {}


if __name__ == "__main__":
    main()
