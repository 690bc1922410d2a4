"""A whole decode step of one Transformer: ours against PyTorch and ONNX Runtime.

The weights are random and differ in every layer, since equal ones would be kept once by ONNX
Runtime. Each side has the same Python call a token, takes the token it is given and returns logits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from harness import candidates, plugins
from harness.engines.numba import random
from harness.make import pack
from harness.peers.frame import Cell, Group, Setup
from harness.peers.limit import hire
from harness.peers.rounds import Samples, Side, faster, geometric_mean, rounds
from harness.records import Array, Checkpoint, Opened

CANDIDATE, QUICK = "attention:110m", "attention:nano"
# formats of ours -> forms of peers that hold weights in as many bits
RIVALS: Mapping[tuple[str, ...], Mapping[str, tuple[str, ...]]] = {
    ("f16", "bf16"): {"torch": ("f16", "bf16", "bf16 onednn", "bf16 compiled")},
    ("int8", "int8g32"): {
        "torch": ("int8 dynamic", "int8 packed", "int8 packed compiled"),
        "onnxruntime": ("int8 g32",),
    },
    ("int4",): {"torch": ("int4 packed", "int4 packed compiled"), "onnxruntime": ("int4 g32",)},
}
TOKENS = 8  # of a turn, after two that wake threads up
ROOM = 64
SCREEN = 1.5


def name_of(form: str, threads: int) -> str:
    return f"step 110m {form} against PyTorch and ONNX Runtime, {threads}t"


def ours(forms: tuple[str, ...]) -> list[str]:
    return [form for form in forms if form in plugins.formats()]


def plan(setup: Setup) -> Mapping[str, str]:
    planned = {
        name_of(form, threads): ">= 1"
        for forms in RIVALS
        for threads in setup.threads
        for form in ours(forms)
    }
    return planned | {"step 110m against PyTorch and ONNX Runtime, mean": ">= 1.5"}


def cells(setup: Setup) -> Iterator[Cell]:
    checkpoint = distinct(candidates.parse(QUICK if setup.quick else CANDIDATE).name)
    found = []
    for threads in setup.threads:
        for forms, rivals in RIVALS.items():
            setup.say(f"{' and '.join(forms)}, {threads} threads")
            samples, notes = measure(checkpoint, ours(forms), rivals, setup, threads)
            peers = [name for name in samples if name not in forms]
            for form in ours(forms):
                found.append(
                    faster(
                        name_of(form, threads),
                        samples,
                        ours=form,
                        theirs=peers,
                        bar=">= 1",
                        note=notes,
                        headline=True,
                    )
                )
                yield found[-1]
    yield geometric_mean("step 110m against PyTorch and ONNX Runtime, mean", found, ">= 1.5")


def distinct(name: str) -> Checkpoint:
    """Random float32 weights, in every layer others."""
    made = random.checkpoint(replace(candidates.parse(name), tokens=0))
    arrays: dict[str, Array] = {}
    for key, array in made.arrays.items():
        layer = int(key.split(".")[1]) if key.startswith("layers.") else 0
        arrays[key] = np.roll(array, layer, axis=0) if array.ndim > 1 else array
    return replace(made, arrays=arrays)


def measure(
    checkpoint: Checkpoint,
    forms: list[str],
    rivals: Mapping[str, tuple[str, ...]],
    setup: Setup,
    threads: int,
) -> tuple[Samples, str]:
    """Seconds a token of each side that is worth the time, and what was tried besides."""
    makers = {
        form: partial(_open, "numba", pack(checkpoint, form), threads, "") for form in forms
    } | {
        f"{engine} {form}": partial(_open, engine, checkpoint, threads, form)
        for engine, kinds in rivals.items()
        for form in kinds
    }
    opened: dict[str, Opened] = {}
    slow: dict[str, str] = {}
    for name, make in makers.items():
        setup.say(f"{name}, {threads} threads")
        try:
            opened[name] = hire(setup, threads, make)
        except (RuntimeError, NotImplementedError) as problem:
            slow[name] = f"{name} does not run here: {str(problem).splitlines()[0][:60]}"
    sides = {name: _turn(engine) for name, engine in opened.items()}
    once = {name: min(side() for _ in range(3)) for name, side in sides.items()}
    best = min(seconds for name, seconds in once.items() if name not in forms)
    for name in [n for n, seconds in once.items() if n not in forms and seconds > SCREEN * best]:
        slow[name] = f"{name} took {1e3 * once[name]:.1f} ms"
        opened.pop(name).close()
        del sides[name]
    try:
        samples = rounds(sides, setup.rounds)
    finally:
        for engine in opened.values():
            engine.close()
    return samples, "; ".join(slow.values())


def _open(engine: str, checkpoint: Checkpoint, threads: int, form: str) -> Opened:
    opened = plugins.pick(plugins.engines(), engine, "engine").open(checkpoint, ROOM, threads, form)
    opened.step(1)  # libraries start their threads, and compile, when they have to
    return opened


def _turn(opened: Opened) -> Side:
    def turn() -> float:
        opened.reset()
        for token in range(2):
            opened.step(token)
        begin = time.perf_counter()
        for token in range(TOKENS):
            opened.step(token)
        return (time.perf_counter() - begin) / TOKENS

    return turn


SPEC = Group(
    name="steps",
    summary="A whole decode step of 110 M parameters, against PyTorch and ONNX Runtime",
    plan=plan,
    cells=cells,
    needs=("torch", "onnxruntime", "onnx"),
    peers=("numba", "torch", "onnxruntime"),
)
