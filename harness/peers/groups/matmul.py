"""The matrix product of a prompt, without its norms and roundings, against the peak of the cores.

The peak is what dot products of bytes reach in registers, in the same rounds; that of float32 for
the float formats.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

import numpy as np
from numba import njit

from harness import limits, plugins
from harness.arena import AT_ONCE
from harness.engines.numba.places import aligned
from harness.errors import Mismatch
from harness.peers.frame import Cell, Group, Setup
from harness.peers.rounds import rounds, share
from harness.records import Array, Format
from kernels.simd import LANES, OPTIONS
from kernels.team import share as part_of

SHAPES = ((2048, 768), (768, 2048))  # rows, columns of 110m's ffn
BAR = ">= 0.8"
FORMS = ("int8", "int8g32", "int4", "f32", "f16")
TURN_SECONDS = 0.03


def plan(setup: Setup) -> Mapping[str, str]:
    return {
        _name(rows, columns, form, threads): _bar(form)
        for rows, columns in SHAPES
        for form in FORMS
        for threads in setup.threads
    }


def cells(setup: Setup) -> Iterator[Cell]:
    for threads in setup.threads:
        cpus = setup.cpus[:threads]
        tops = {task.key.split(".")[0]: task for task in limits.core_tasks(cpus, threads, "")}
        for rows, columns in SHAPES:
            tasks = {form: _task(setup, form, rows, columns, threads) for form in FORMS}
            tasks |= {f"{kind} peak": tops[f"{kind}_ops_per_s"] for kind in ("int8", "float32")}
            passes = {name: limits.calibrate(task, TURN_SECONDS) for name, task in tasks.items()}
            sides = {n: partial(limits.elapsed, task, passes[n]) for n, task in tasks.items()}
            setup.say(f"matmul {rows}x{columns}, {threads}t")
            samples = rounds(sides, setup.rounds)
            for form in FORMS:
                peak = f"{plugins.formats()[form].arithmetic} peak"
                yield share(
                    _name(rows, columns, form, threads),
                    samples,
                    ours=form,
                    limit=peak,
                    amount=tasks[form].amount * passes[form],
                    limit_amount=tasks[peak].amount * passes[peak],
                    bar=_bar(form),
                    unit="op/s",
                    note=f"{AT_ONCE} vectors; of the {peak} in the same rounds",
                    headline=form in ("int8", "int4"),
                )


def _name(rows: int, columns: int, form: str, threads: int) -> str:
    return f"matmul {rows}x{columns} {form} of the peak, {threads}t"


def _bar(form: str) -> str:
    return BAR if form in ("int8", "int4") else ""


def _task(setup: Setup, form: str, rows: int, columns: int, threads: int) -> limits.Task:
    """Each thread multiplies its share of the rows, pass after pass."""
    spec = plugins.formats()[form]
    kernel = importlib.import_module(f"kernels.{spec.kernel}")
    rng = np.random.default_rng(rows)
    weights = rng.standard_normal((rows, columns)).astype(np.float32)
    stream = _aligned(spec.layout(spec.pack(weights), (rows, columns)))
    stride = kernel.activation_bytes(columns)
    x = rng.standard_normal((AT_ONCE, columns)).astype(np.float32)
    activations = aligned(AT_ONCE * stride)
    for t in range(AT_ONCE):
        kernel.prepare(x.reshape(-1), t * columns, columns, activations, t * stride)
    out = np.zeros(AT_ONCE * rows, np.float32)
    works = []
    for thread in range(threads):
        first, last = part_of(rows // LANES, thread, threads)
        works.append(
            partial(
                _laps(spec.kernel), stream, activations, stride, columns, rows, first, last, out
            )
        )
    for work in works:
        work(1)
    _agree(spec, x, weights, out.reshape(AT_ONCE, rows))
    return limits.Task(form, setup.cpus[:threads], tuple(works), 2.0 * AT_ONCE * rows * columns)


def _aligned(values: Array) -> Array:
    room = aligned(values.size)
    room[:] = values
    return room


@cache
def _laps(kernel: str) -> Callable[..., None]:
    """Passes over one product, in compiled code."""
    multiply = importlib.import_module(f"kernels.{kernel}").multiply

    @njit(**OPTIONS)
    def laps(
        weights: Array, activations: Array, stride: int, k: int, m: int, first: int, last: int,
        out: Array, passes: int,
    ) -> None:  # fmt: skip
        for _ in range(passes):
            multiply(
                weights, 0, activations, 0, stride, AT_ONCE, k, m, first, last, out, 0, m, False
            )

    found: Callable[..., None] = laps
    return found


def _agree(spec: Format, x: Array, weights: Array, found: Array) -> None:
    stored = spec.unpack(spec.pack(weights), weights.shape)
    wanted = x.astype(np.float64) @ stored.T.astype(np.float64)
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    if error > spec.rtol:
        raise Mismatch(f"the product in {spec.name} is off by {error:.1e}, allowed {spec.rtol:.0e}")


SPEC = Group(
    name="matmul",
    summary="the matrix product of a prompt against the peak of the cores",
    plan=plan,
    cells=cells,
)
