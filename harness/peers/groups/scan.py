"""MCSD's mixing of a prompt, without projections: against the copy limit, and two PyTorch forms.

Ours writes over its input, as the engine runs it; a value costs four reads and a write either
way. PyTorch gets the form that trains, chunk by chunk, and the loop over tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise

import numpy as np

from harness import limits
from harness.engines.numba.places import aligned
from harness.errors import Mismatch
from harness.peers.frame import Cell, Group, Setup
from harness.peers.limit import hire
from harness.peers.rounds import Samples, Side, faster, rounds, share, timed
from harness.records import Array
from kernels import mcsd

CHANNELS, FEATURES = 8, 96  # a model of width 768
WIDTH = CHANNELS * FEATURES
STREAMS = 5  # u, v, f, e are read, y is written; float32
NEAR = 64  # tokens that the engine takes in one call: a second-level cache holds them
PROMPT = 2048  # tokens that PyTorch mixes
BARS = {"chunked": ">= 5", "recurrent": ">= 30"}
LIMIT = ">= 0.95"
TURN_SECONDS = 0.05


def far(setup: Setup) -> int:
    """Tokens whose values are four times what the last cache holds."""
    size = max(limits.DRAM_BYTES, 4 * limits.last_cache(setup.cpus))
    return -(-size // (4 * 4 * WIDTH))


def plan(setup: Setup) -> Mapping[str, str]:
    planned: dict[str, str] = {}
    for threads in setup.threads:
        planned |= {
            f"mcsd scan of the copy limit, {threads}t": LIMIT,
            f"mcsd scan into another array of the copy limit, {threads}t": "",
            f"mcsd scan in cache of its copy limit, {threads}t": "",
        }
        planned |= {
            f"mcsd scan against PyTorch {form}, {threads}t": bar for form, bar in BARS.items()
        }
    return planned


def cells(setup: Setup) -> Iterator[Cell]:
    for threads in setup.threads:
        setup.say(f"copy limit, {threads} threads")
        yield from _limits(setup, threads)
        setup.say(f"PyTorch, {threads} threads")
        yield from _torch(setup, threads)


def _limits(setup: Setup, threads: int) -> Iterator[Cell]:
    tokens = far(setup)
    arrays, other = drawn(tokens), np.empty((tokens, CHANNELS, FEATURES), np.float32)
    amount = STREAMS * other.nbytes
    works = {
        "ours": _task(setup, threads, arrays, arrays[0], amount),
        "apart": _task(setup, threads, arrays, other, amount),
        "limit": _copy(setup, threads, arrays[0].nbytes),
    }
    passes = {name: limits.calibrate(task, TURN_SECONDS) for name, task in works.items()}
    sides = {name: partial(limits.elapsed, task, passes[name]) for name, task in works.items()}
    samples = rounds(sides, setup.rounds)
    top = works["limit"].amount * passes["limit"]
    whole, note = "mcsd scan{} of the copy limit, {}t", f"{tokens} tokens of width {WIDTH}"
    yield share(
        whole.format("", threads), samples, amount=amount * passes["ours"], limit_amount=top,
        bar=LIMIT, note=note, headline=True,
    )  # fmt: skip
    yield share(
        whole.format(" into another array", threads), samples, ours="apart",
        amount=amount * passes["apart"], limit_amount=top, bar="", note=note,
    )  # fmt: skip
    yield _near(setup, threads)


def _near(setup: Setup, threads: int) -> Cell:
    arrays = drawn(NEAR)
    amount = STREAMS * arrays[0].nbytes
    works = {
        "ours": _task(setup, threads, arrays, arrays[0], amount),
        "limit": _copy(setup, threads, amount // 2),
    }
    passes = {name: limits.calibrate(task, TURN_SECONDS) for name, task in works.items()}
    sides = {name: partial(limits.elapsed, task, passes[name]) for name, task in works.items()}
    return share(
        f"mcsd scan in cache of its copy limit, {threads}t", rounds(sides, setup.rounds),
        amount=amount * passes["ours"], limit_amount=amount // 2 * 2 * passes["limit"], bar="",
        note=f"{NEAR} tokens, as in one call; here the gates are the limit",
    )  # fmt: skip


def _torch(setup: Setup, threads: int) -> Iterator[Cell]:
    from harness.mixers.mcsd import memory  # noqa: PLC0415 - brings torch

    tokens = 256 if setup.quick else PROMPT
    arrays = drawn(tokens)
    y = np.empty_like(arrays[0])
    sides: dict[str, Side] = {}
    for form in BARS:
        call = hire(setup, threads, partial(_started, memory, arrays, form, threads))
        sides[f"PyTorch {form}"] = timed(call)
        _agree(form, call(), arrays)
    task = _task(setup, threads, arrays, y, STREAMS * y.nbytes)
    passes = limits.calibrate(task, TURN_SECONDS / 2)
    sides["ours"] = lambda: limits.elapsed(task, passes) / passes
    samples: Samples = rounds(sides, min(setup.rounds, 7))
    for form, bar in BARS.items():
        yield faster(
            f"mcsd scan against PyTorch {form}, {threads}t", samples, bar=bar,
            theirs=(f"PyTorch {form}",), note=f"{tokens} tokens of width {WIDTH}", headline=True,
        )  # fmt: skip


def drawn(tokens: int) -> list[Array]:
    """Arguments of the kernel but for y: values at random, no context before them."""
    rng = np.random.default_rng(0)
    sizes = {"n": 1, "c": CHANNELS, "w": FEATURES}
    constants = mcsd.SPEC.inputs(sizes, rng)[4:7]
    shape = (tokens, CHANNELS, FEATURES)
    values = [rng.standard_normal(shape, np.float32) for _ in range(4)]
    arrays = [*values, *constants, np.zeros(2 * WIDTH + CHANNELS, np.float32)]
    return [_aligned(array) for array in arrays]


def _aligned(array: Array) -> Array:
    """A copy that begins on a cache line, as all that the engine keeps does."""
    moved: Array = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def _task(setup: Setup, threads: int, arrays: list[Array], y: Array, amount: int) -> limits.Task:
    """The scan over and over; each thread has channels of its own."""

    def work(first: int, last: int) -> Callable[[int], None]:
        def scan(passes: int) -> None:
            for _ in range(passes):
                mcsd.run(*arrays, y, first, last)

        return scan

    cuts = [CHANNELS * turn // threads for turn in range(threads + 1)]
    works = tuple(work(*span) for span in pairwise(cuts))
    return limits.Task("", setup.cpus[:threads], works, amount)


def _copy(setup: Setup, threads: int, size: int) -> limits.Task:
    """Copy `size` bytes; what counts is what was read and what was written."""
    from harness import probes  # noqa: PLC0415 - brings numba

    source = np.array_split(np.ones(size // 4, np.float32), threads)
    target = np.array_split(np.ones(size // 4, np.float32), threads)
    works = tuple(limits.on(probes.copy, a, b) for a, b in zip(source, target, strict=True))
    return limits.Task("", setup.cpus[:threads], works, 2 * (size // 4 * 4))


def _started(module: object, arrays: list[Array], form: str, threads: int) -> Callable[[], Array]:
    call: Callable[[], Array] = module.mixing(arrays[:7], form, threads)  # type: ignore[attr-defined]
    call()  # the library starts its threads when it has to
    return call


def _agree(form: str, found: Array, arrays: list[Array]) -> None:
    y = np.empty_like(arrays[0])
    mcsd.run(*arrays[:-1], np.zeros_like(arrays[-1]), y, 0, CHANNELS)
    error = float(np.abs(found - y).max() / np.abs(y).max())
    if not error < 1e-3:
        raise Mismatch(f"PyTorch's {form} form and ours differ by {error:.1e}; not timed")


SPEC = Group(
    name="scan",
    summary="MCSD's mixing of a prompt, against the copy limit and PyTorch",
    plan=plan,
    cells=cells,
    needs=("torch",),
    peers=("torch",),
    source="kernels/mcsd.py; harness/mixers/mcsd/memory.py",
)
