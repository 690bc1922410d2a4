"""Mixers + ffn + formats -> the source of a module whose `enter` is the whole forward pass.

Layers in a row that are alike share a loop. A mixer or an ffn has one format, as it prepares what
enters it once for all of its matrices.
"""

from __future__ import annotations

from itertools import groupby

from harness import plugins
from harness.candidates import tensors
from harness.errors import BadCheckpoint
from harness.records import Checkpoint


def write(checkpoint: Checkpoint) -> str:
    """The source of the module."""
    shape = checkpoint.shape
    outer = _format_of(checkpoint, "embedding" if shape.tied else "head")
    table = _format_of(checkpoint, "embedding")
    halves = _formats_of_layers(checkpoint)
    runs, layer = [], 0
    for key, group in groupby(zip(shape.mixers, halves, strict=True)):
        count = len(list(group))
        runs.append((*key, layer, layer + count))
        layer += count
    used = {
        name: plugins.pick(plugins.mixers(), name, "mixer") for name in dict.fromkeys(shape.mixers)
    }
    aliases = {name: f"mixer_{i}" for i, name in enumerate(used)}
    forms = {
        f: f"form_{i}" for i, f in enumerate(dict.fromkeys(f for both in halves for f in both))
    }
    lines = [
        f'"""{" + ".join(used)} with {shape.ffn}; weights {" and ".join(forms)}, head {outer}, '
        f'embedding {table}. Generated."""',
        "",
        *TOP.format(
            outer=plugins.formats()[outer].kernel, table=plugins.formats()[table].kernel
        ).splitlines(),
    ]
    lines += [f"from kernels import {plugins.formats()[f].kernel} as {a}" for f, a in forms.items()]
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
    for name, (mixing, feeding), first, last in runs:
        lines += LAYERS.format(
            first=first,
            last=last,
            mixer=aliases[name],
            mixing=forms[mixing],
            feeding=forms[feeding],
        ).splitlines()
    return "\n".join([*lines, *TAIL.splitlines()]) + "\n"


def _formats_of_layers(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """The format of each layer's mixer, and of its ffn; raises BadCheckpoint where one has two."""
    kinds: dict[tuple[str, str], dict[str, str]] = {}
    for name, tensor in tensors(checkpoint.shape).items():
        if tensor.packed and "." in name:
            _, layer, half, _ = name.split(".")
            kinds.setdefault((layer, half), {})[_format_of(checkpoint, name)] = name
    for (_, half), found in kinds.items():
        if len(found) > 1:
            listed = ", ".join(f"{name} is {kind}" for kind, name in found.items())
            raise BadCheckpoint(
                f"{checkpoint.recipe.name}: every {half} needs one format, but {listed}"
            )
    one = {place: next(iter(found)) for place, found in kinds.items()}
    layers = map(str, range(checkpoint.shape.layers))
    return [(one[layer, "mixer"], one[layer, "ffn"]) for layer in layers]


def _format_of(checkpoint: Checkpoint, name: str) -> str:
    kind = checkpoint.formats.get(name, "f32")
    plugins.pick(plugins.formats(), kind, "format")
    return kind


TOP = """
from numba import njit

from harness import arena
from kernels import laps
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
                {mixing}.prepare, {mixing}.multiply, {mixing}.activation_bytes,
                thread, threads, block, n, depth, dims, weights, small, mixers[layer], state,
                scratch, prepared,
            )
            laps.lap(thread, block, laps.PROJECT)
            norm(thread, threads, n, opaque(0), norms[layer, 1], dims, small, scratch)
            laps.lap(thread, block, laps.NORM)
            ffn(
                {feeding}.prepare, {feeding}.multiply, {feeding}.activation_bytes,
                thread, threads, block, n, dims, weights, small, ffns[layer], scratch, prepared,
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
