"""This machine -> what it can read, copy and compute at most, measured."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from harness import checkpoint, machine, stats
from harness.cores import affinity_for, clusters, pin, usable_cores, usable_cpus
from kernels.spec import Array

Samples: TypeAlias = Mapping[str, tuple[float, ...]]  # "read_bytes_per_s.2" -> its rounds
Work: TypeAlias = Callable[[int], object]  # takes the number of passes
Form: TypeAlias = tuple[Callable[..., object], tuple[Array, ...], float]  # operations a pass

ROUND_SECONDS = 0.05  # a thousand times what starting threads together takes
ROUNDS = 9
FEWEST_ROUNDS = 3  # with fewer, a limit is not worth keeping
DRAM_BYTES = 192 * 2**20
KEPT_SECONDS = 3600.0
KEPT_UNSTEADY_SECONDS = 300.0  # when a noisy moment may have spoiled them


@dataclass(frozen=True, slots=True)
class Task:
    """One limit to measure: a piece of work for each thread, and what a pass of all yields."""

    key: str
    cpus: tuple[int, ...]  # () where threads cannot be pinned
    works: tuple[Work, ...]
    amount: float


def limits(seconds: float = 25.0) -> dict[str, float]:
    """Median of each limit of this machine, measured now; see `measure` for the keys."""
    return medians(measure(seconds))


def cached_limits(seconds: float = 25.0, folder: Path | None = None) -> dict[str, float]:
    """Like `limits`, but at most one measurement an hour for the same CPU and affinity."""
    return medians(cached(seconds, folder))


def medians(samples: Samples) -> dict[str, float]:
    return {key: stats.median(rounds) for key, rounds in samples.items()}


def measure(seconds: float = 25.0) -> Samples:
    """Rounds of every limit, within about so many seconds, compiling included.

    Keys end in the number of threads, powers of two and all: `read_bytes_per_s.1` of memory,
    `cache_read_bytes_per_s.1` of a set of half the last-level cache, `copy_bytes_per_s.1` read
    and written, `float32_ops_per_s.1`, `int8_ops_per_s.1`, and `clock_hz.1`, the slowest core's
    under load. Where kinds of core differ, `clock_hz.cpu4`, `float32_ops_per_s.cpu4` and
    `int8_ops_per_s.cpu4` tell of the cluster that starts with CPU 4. What there is no time or
    memory for is absent.
    """
    start = time.monotonic()
    passes: list[int] = []
    tasks = _tasks() if seconds > 0 else []
    for task in tasks:
        # On a slow machine fewer limits, those of few threads, are better than none in time.
        if time.monotonic() < start + 0.6 * seconds:
            passes.append(calibrate(task))
    tasks = tasks[: len(passes)]
    found: dict[str, list[float]] = {task.key: [] for task in tasks}
    # Round by round over all tasks, so that a noisy moment costs each of them one sample.
    for _ in range(ROUNDS):
        for task, count in zip(tasks, passes, strict=True):
            if time.monotonic() < start + seconds:
                found[task.key].append(task.amount * count / elapsed(task, count))
    return {key: tuple(rounds) for key, rounds in found.items() if rounds}


def cached(seconds: float = 25.0, folder: Path | None = None) -> Samples:
    """Like `measure`, but reads them from `folder` (the user's cache) when an hour old at most."""
    folder = folder or checkpoint.folder() / "limits"
    who = (machine.hostname(), machine.cpu_model(), usable_cpus(), usable_cores())
    path = folder / f"{hashlib.sha256(repr(who).encode()).hexdigest()[:16]}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if 0 <= time.time() - stored["at"] < stored["keep"]:
            return {str(k): tuple(map(float, v)) for k, v in stored["samples"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no cache, or not a whole one: measure again
    samples = measure(seconds)
    if samples and min(len(rounds) for rounds in samples.values()) >= FEWEST_ROUNDS:
        steady = stats.spread(samples["clock_hz.1"]) < stats.UNSTEADY_SPREAD
        keep = KEPT_SECONDS if steady else KEPT_UNSTEADY_SECONDS
        _keep(path, json.dumps({"at": time.time(), "keep": keep, "samples": samples}))
    return samples


def thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4 ... below `cores`, and `cores`."""
    return (*(2**i for i in range(cores.bit_length()) if 2**i < cores), cores)


def _keep(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        os.replace(file.name, path)
    except OSError:
        return  # a cache that cannot be written costs time, nothing else


def _tasks() -> list[Task]:
    from harness import probes  # noqa: PLC0415 - brings numba

    everything = last_cache(usable_cpus())
    size = min(max(DRAM_BYTES, 4 * everything), machine.available_bytes() // 3)
    memory = np.ones(size // 4, np.float32)
    tasks = []
    for threads in thread_counts(usable_cores()):
        cpus = affinity_for(threads)
        near = memory[: last_cache(cpus) // 2 // 4]
        # A buffer that a cache could hold in good part would flatter the memory.
        far = memory if size >= 2 * everything else memory[:0]
        for name, values, work in (
            ("read_bytes_per_s", far, probes.read),
            ("cache_read_bytes_per_s", near, probes.read),
            ("copy_bytes_per_s", far, _copy(probes.copy)),
        ):
            if values.size >= 64 * threads:
                works = tuple(on(work, part) for part in np.array_split(values, threads))
                tasks.append(Task(f"{name}.{threads}", cpus, works, values.nbytes))
        tasks += core_tasks(cpus, threads, str(threads))
    kinds = clusters()
    for _, cpus in kinds if len(kinds) > 1 else ():
        tasks += core_tasks(cpus, len(cpus), f"cpu{cpus[0]}")
    return tasks


def core_tasks(cpus: tuple[int, ...], threads: int, suffix: str) -> Iterator[Task]:
    """Clock and peaks of `threads` cores together."""
    from harness import probes  # noqa: PLC0415 - brings numba
    from kernels.lowering import LANES, has  # noqa: PLC0415

    # Every core has the same chain to finish, so the slowest one's clock is seen.
    turns = float(probes.CHAIN * probes.STEPS)
    yield Task(f"clock_hz.{suffix}", cpus, (on(probes.chain, 3, 5),) * threads, turns)
    lanes = 2.0 * LANES * probes.STEPS
    floats: list[Form] = [
        (probes.multiply_add, (np.ones(1024, np.float32),), 2.0 * 1024 * probes.FUSED)
    ]
    vector = np.ones(2048, np.int8)
    ints: list[Form] = [(probes.dot_row, (vector, vector), 2.0 * vector.size)]
    if has("fma", "neon"):
        ones = np.ones(LANES, np.float32)
        floats += [(probes.fused_6, (ones,), 6 * lanes), (probes.fused_12, (ones,), 12 * lanes)]
    # Without an instruction of their own, dots are arithmetic that the compiler does only once.
    if has("avx512vnni", "avxvnni", "dotprod"):
        small = np.ones(4 * LANES, np.uint8)
        ints += [(probes.dots_6, (small, vector), 4 * lanes * 6)]
        ints += [(probes.dots_12, (small, vector), 4 * lanes * 12)]
    for name, forms in (("float32_ops_per_s", floats), ("int8_ops_per_s", ints)):
        # Which form reaches the peak depends on the instruction set: the fastest one counts.
        work, arrays, amount = max(forms, key=lambda form: _rate(form, cpus[:1]))
        works = tuple(on(work, *(array.copy() for array in arrays)) for _ in range(threads))
        yield Task(f"{name}.{suffix}", cpus, works, amount * threads)


def _rate(form: Form, cpus: tuple[int, ...]) -> float:
    work, arrays, amount = form
    task = Task("", cpus, (on(work, *arrays),), amount)
    passes = calibrate(task)
    return amount * passes / elapsed(task, passes)


def last_cache(cpus: tuple[int, ...]) -> int:
    """Bytes of the last cache before memory that these CPUs reach; 0 where unknown."""
    sizes = machine.total_caches(cpus)
    return sizes.get("l3") or sizes.get("l2") or 0


def on(work: Callable[..., object], *given: Array | int) -> Work:
    """The work on those arrays, which is told how many passes to make."""
    return lambda passes: work(*given, passes)


def _copy(work: Callable[..., object]) -> Callable[[Array, int], object]:
    def halves(values: Array, passes: int) -> object:
        n = values.size // 2
        return work(values[:n], values[n : 2 * n], passes)

    return halves


def calibrate(task: Task, wanted: float = ROUND_SECONDS) -> int:
    """Passes that take so many seconds; the first call compiles."""
    elapsed(task, 1)
    passes = 1
    while (took := elapsed(task, passes)) < wanted / 8:
        passes *= 8
    return max(1, round(passes * wanted / took))


def elapsed(task: Task, passes: int) -> float:
    """From when the first thread starts to when the last one is done."""
    threads = len(task.works)
    gate = threading.Barrier(threads)

    def run(turn: int) -> tuple[float, float]:
        pin(task.cpus[turn : turn + 1])
        gate.wait(timeout=60)
        start = time.perf_counter()
        task.works[turn](passes)
        return start, time.perf_counter()

    with ThreadPoolExecutor(threads) as pool:
        spans = list(pool.map(run, range(threads)))
    return max(end for _, end in spans) - min(start for start, _ in spans)
