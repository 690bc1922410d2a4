"""Attention of one new token behind 8192, without its projections, against the read limit.

Heads lie one after the other as in a model, and there are more of them than caches hold.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

import numpy as np
from numba import njit

from harness import limits
from harness.engines.numba.places import aligned
from harness.peers.frame import Cell, Group, Setup
from harness.peers.limit import reader
from harness.peers.rounds import rounds, share
from harness.records import Array
from kernels.attending import scratch_values
from kernels.caches import KINDS
from kernels.simd import OPTIONS
from kernels.team import share as part_of

DEPTH, WIDTH = 8192, 64
BAR = ">= 0.85"
KERNELS = {"f16": "attention_f16", "int8": "attention_int8", "f32": "attention"}
TURN_SECONDS = 0.05


def plan(setup: Setup) -> Mapping[str, str]:
    return {_name(c, t): _bar(c) for t in setup.threads for c in KERNELS}


def cells(setup: Setup) -> Iterator[Cell]:
    for threads in setup.threads:
        limit = reader(setup, threads)
        tasks = {name: _task(setup, name, threads) for name in KERNELS}
        passes = {name: limits.calibrate(task, TURN_SECONDS) for name, task in tasks.items()}
        sides = {n: partial(limits.elapsed, task, passes[n]) for n, task in tasks.items()}
        setup.say(f"attention at depth {DEPTH}, {threads}t")
        samples = rounds({**sides, "limit": limit.side}, setup.rounds)
        for name in KERNELS:
            yield share(
                _name(name, threads),
                samples,
                ours=name,
                amount=tasks[name].amount * passes[name],
                limit_amount=limit.amount,
                bar=_bar(name),
                headline=name == "f16",
            )


def _name(cache_name: str, threads: int) -> str:
    return f"attention at depth {DEPTH}, {cache_name} cache, of the read limit, {threads}t"


def _bar(cache_name: str) -> str:
    return BAR if cache_name == "f16" else ""


def _task(setup: Setup, name: str, threads: int) -> limits.Task:
    """Each thread attends over its share of the heads, pass after pass."""
    kernel = importlib.import_module(f"kernels.{KERNELS[name]}")
    kept = KINDS[name]
    records = DEPTH // 16
    keys, values = records * kept.key_bytes(WIDTH), records * kept.value_bytes(WIDTH)
    heads = -(-max(limits.DRAM_BYTES, 4 * limits.last_cache(setup.cpus)) // (keys + values))
    heads = -(-heads // threads) * threads
    past = aligned(heads * (keys + values))
    rng = np.random.default_rng(0)
    for token in range(DEPTH):
        new = rng.standard_normal(2 * WIDTH).astype(np.float32)
        kernel.append(new, 0, new, WIDTH, WIDTH, past, 0, DEPTH, token)
    past.reshape(heads, -1)[1:] = past[: keys + values]
    q = rng.standard_normal(heads * WIDTH).astype(np.float32)
    works = []
    for thread in range(threads):
        first, last = part_of(heads, thread, threads)
        scratch = np.zeros(scratch_values(WIDTH, DEPTH), np.float32)
        works.append(partial(_laps(KERNELS[name]), q, past, scratch, np.zeros_like(q), first, last))
    return limits.Task(name, setup.cpus[:threads], tuple(works), float(past.size))


@cache
def _laps(kernel: str) -> Callable[..., None]:
    """Passes over heads first..last, in compiled code."""
    attend = importlib.import_module(f"kernels.{kernel}").attend

    @njit(**OPTIONS)
    def laps(
        q: Array, past: Array, scratch: Array, out: Array, first: int, last: int, passes: int
    ) -> None:
        size = past.size // (q.size // WIDTH)
        for _ in range(passes):
            for head in range(first, last):
                attend(
                    q, head * WIDTH, 0, 1, 1, DEPTH - 1, WIDTH, past, head * size, DEPTH, scratch,
                    0, out, head * WIDTH, 0,
                )  # fmt: skip

    found: Callable[..., None] = laps
    return found


SPEC = Group(
    name="attention",
    summary="attention of one token behind 8192, against the read limit",
    plan=plan,
    cells=cells,
)
