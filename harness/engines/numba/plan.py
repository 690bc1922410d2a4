"""Mixers + ffn + formats -> a Python module whose `enter` is the whole forward pass.

The module is written to a folder named by the hash of everything that shapes the machine code
(kernel and engine sources, Numba, CPU), because Numba's own cache does not notice an edit in
another file. Plain module-level functions are what that cache can hold.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from contextlib import suppress
from functools import cache
from itertools import groupby
from pathlib import Path
from types import ModuleType

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np

import kernels
from harness import plugins
from harness.candidates import tensors
from harness.checkpoint import folder
from harness.errors import BadCheckpoint, HarnessError
from harness.records import Checkpoint
from kernels import laps, lowering

SOURCES = Path(__file__).parents[2]


def load(checkpoint: Checkpoint) -> ModuleType:
    """The compiled-on-first-use module for this checkpoint's architecture and formats."""
    text = write(checkpoint)
    name = f"plan_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    path = _home() / f"{name}.py"
    if not _holds(path, text):
        _write_atomically(path, text)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HarnessError(f"the plan {path} cannot be imported; delete it and try again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except RuntimeError:
        # Numba refuses when it may write nowhere: compile in each process, then.
        exec(compile(text.replace("cache=True, ", ""), path, "exec"), vars(module))
    return module


def renew(module: ModuleType) -> None:
    """Forget what was compiled of a plan, here and on disk, as when its file turns out broken."""
    path = Path(str(module.__file__))
    for file in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        with suppress(OSError):
            file.unlink()
    del sys.modules[path.stem]


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text("utf-8") == text
    except (OSError, ValueError):
        return False


def first_seconds(module: ModuleType, seconds: float) -> float:
    """What the first load of this plan took, which compiled it; `seconds` if this is the first."""
    path = Path(str(module.__file__)).with_suffix(".seconds")
    try:
        return float(path.read_text("utf-8"))
    except (OSError, ValueError):
        with suppress(OSError):  # a cache that cannot be written has compiled just now
            path.write_text(repr(seconds), "utf-8")
        return seconds


def write(checkpoint: Checkpoint) -> str:
    """The source of the module."""
    shape = checkpoint.shape
    body = _format_of_layers(checkpoint)
    outer = _format_of(checkpoint, "embedding" if shape.tied else "head")
    table = _format_of(checkpoint, "embedding")
    runs, layer = [], 0
    for name, group in groupby(shape.mixers):
        count = len(list(group))
        runs.append((name, layer, layer + count))
        layer += count
    used = {
        name: plugins.pick(plugins.mixers(), name, "mixer") for name in dict.fromkeys(shape.mixers)
    }
    aliases = {name: f"mixer_{i}" for i, name in enumerate(used)}
    lines = [
        f'"""{" + ".join(used)} with {shape.ffn}; weights {body}, head {outer}, '
        f'embedding {table}. Generated."""',
        "",
        *TOP.format(
            body=plugins.formats()[body].kernel,
            outer=plugins.formats()[outer].kernel,
            table=plugins.formats()[table].kernel,
        ).splitlines(),
    ]
    for name, mixer in used.items():
        module = plugins.half(mixer, "engine").__name__
        lines += [
            f"from {module} import {mixer.begin} as begin_{aliases[name]}",
            f"from {module} import {mixer.forward(shape)} as {aliases[name]}",
        ]
    ffn = plugins.pick(plugins.ffns(), shape.ffn, "ffn")
    lines += [
        f"from {plugins.half(ffn, 'engine').__name__} import forward as ffn",
        *HEAD.splitlines(),
    ]
    lines += [
        f"        begin_{alias}(thread, n, depth, dims, small, state, scratch)"
        for alias in aliases.values()
    ]
    lines.append("        laps.lap(thread, block, laps.MIX)")
    for name, first, last in runs:
        lines += LAYERS.format(first=first, last=last, mixer=aliases[name]).splitlines()
    return "\n".join([*lines, *TAIL.splitlines()]) + "\n"


def _format_of_layers(checkpoint: Checkpoint) -> str:
    """The one format of all matrices inside layers; raises BadCheckpoint where they differ."""
    names = [n for n, t in tensors(checkpoint.shape).items() if t.packed and "." in n]
    kinds = {_format_of(checkpoint, name): name for name in names}
    if len(kinds) != 1:
        found = ", ".join(f"{name} is {kind}" for kind, name in kinds.items())
        raise BadCheckpoint(f"{checkpoint.recipe.name}: layers need one format, but {found}")
    return next(iter(kinds))


def _format_of(checkpoint: Checkpoint, name: str) -> str:
    kind = checkpoint.formats.get(name, "f32")
    plugins.pick(plugins.formats(), kind, "format")
    return kind


@cache
def fingerprint() -> str:
    """Hash of all that decides what machine code comes out."""
    digest = hashlib.sha256()
    roots = [Path(kernels.__file__).parent, SOURCES / "mixers", SOURCES / "ffns"]
    roots.append(Path(__file__).parent)
    if user := os.environ.get(plugins.PLUGINS):
        roots.append(Path(user))
    files = [p for root in roots for p in root.rglob("*.py")] + [SOURCES / "arena.py"]
    for path in sorted(files):
        digest.update(path.name.encode() + path.read_bytes())
    cpu = numba.core.config.CPU_NAME or llvm.get_host_cpu_name()
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    digest.update(repr((versions, cpu, lowering.features(), laps.ON)).encode())
    return digest.hexdigest()[:16]


def _home() -> Path:
    return folder() / "plans" / fingerprint()


def _write_atomically(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".plan-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise HarnessError(
            f"cannot write the plan {path}: {error}; set EDGEWISE_CACHE to a writable folder"
        ) from error


TOP = """
from numba import njit

from harness import arena
from kernels import laps
from kernels import {body} as body
from kernels import {outer} as outer
from kernels import {table} as table
from kernels.rmsnorm import normalise
from kernels.sharing import owner, part, ready
from kernels.simd import INNER, LANES, OPTIONS, opaque
from kernels.team import JOB, barrier, share, stopped, take
"""

HEAD = """

@njit(**INNER)
def norm(thread, threads, n, start, gain, dims, small, scratch):
    width = dims[arena.WIDTH]
    to = dims[arena.NORMED] + owner(n, thread) * dims[arena.NORMED_PITCH]
    first, last = part(n, thread, threads)
    for t in range(first, last):
        at = dims[arena.RESIDUAL] + (start + t) * width
        normalise(scratch, at, width, small[arena.EPSILON], small, gain, scratch, to + t * width)


@njit(cache=True, **OPTIONS)
def enter(
    thread, threads, block, n, depth, first_logit, tokens, dims, weights, small, state, scratch,
    prepared, logits, norms, mixers, ffns, ends,
):
    # as thread 0 one job, as another each that comes, as -1 none any more; True: team stopped
    turn, width, vocabulary = opaque(0), dims[arena.WIDTH], dims[arena.VOCABULARY]
    while take(thread, threads, block, n, depth, first_logit, turn):
        turn += 1
        n, depth, first_logit = block[JOB], block[JOB + 1], block[JOB + 2]
        laps.start(thread, block)
        begin, end = share(n, thread, threads)
        for t in range(begin, end):
            table.lookup(
                weights, ends[0], width, tokens[t], vocabulary, scratch,
                dims[arena.RESIDUAL] + t * width,
            )
            scratch[dims[arena.TOKENS] + t] = tokens[t]
            scratch[dims[arena.RAN] + t] = 0
        barrier(block, threads)
        laps.lap(thread, block, laps.EMBEDDING)
"""

LAYERS = """\
        for layer in range({first}, {last}):
            norm(thread, threads, n, opaque(0), norms[layer, 0], dims, small, scratch)
            laps.lap(thread, block, laps.NORM)
            {mixer}(
                body.prepare, body.multiply, body.activation_bytes, thread, threads, block, n,
                depth, dims, weights, small, mixers[layer], state, scratch, prepared,
            )
            laps.lap(thread, block, laps.PROJECT)
            norm(thread, threads, n, opaque(0), norms[layer, 1], dims, small, scratch)
            laps.lap(thread, block, laps.NORM)
            ffn(
                body.prepare, body.multiply, body.activation_bytes, thread, threads, block, n,
                dims, weights, small, ffns[layer], scratch, prepared,
            )
            laps.lap(thread, block, laps.FFN)
"""

TAIL = """\
        wanted = n - first_logit
        if wanted > 0:  # else a part of a prompt that is not its last
            norm(thread, threads, wanted, first_logit, ends[2], dims, small, scratch)
            laps.lap(thread, block, laps.NORM)
            place, stride = dims[arena.PREPARED_PITCH], outer.activation_bytes(width)
            normed = dims[arena.NORMED] + owner(wanted, thread) * dims[arena.NORMED_PITCH]
            mine = ready(
                outer.prepare, scratch, normed, width, width, wanted, prepared, place, stride,
                thread, threads, block,
            )
            begin, end = share((vocabulary + LANES - 1) // LANES, thread, threads)
            flat = logits.reshape(logits.size)
            outer.multiply(
                weights, ends[1], prepared, mine, stride, wanted, width, vocabulary, begin, end,
                flat, 0, vocabulary, False,
            )
            barrier(block, threads)
            laps.lap(thread, block, laps.HEAD)
    return stopped(block)
"""
