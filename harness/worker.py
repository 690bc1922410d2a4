"""Time one candidate in fresh, pinned processes: `python -m harness.worker --job FILE -o FILE`.

A script of pyperf: its manager process spawns one worker a benchmark and value run. A worker
loads the checkpoint, compiles or loads the plan, checks that prefill and decode agree, and times.
It never imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyperf

from harness import checkpoint as checkpoints
from harness import metered
from harness.engines.numba import session as engine
from harness.errors import Mismatch
from harness.make import make
from harness.records import Array, Checkpoint, Recipe
from harness.workload import Run, of

PREFIX = "edgewise_"
AGREEMENT = 1e-3  # of prefill and decode, relative to the largest logit; both run one code
CHECKED = 24  # tokens


# job, run, a place for notes, the file for joules -> loops -> seconds for that many runs
Prepare: TypeAlias = "Callable[[Job, Run, dict[str, float], Path], Callable[[int], float]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to time: a checkpoint's file, or a recipe of random or public weights."""

    recipe: Recipe
    checkpoint: str  # path, "" for what the recipe alone makes
    workloads: tuple[str, ...]
    threads: int
    cores: tuple[int, ...]
    text: tuple[int, ...]  # token ids to feed, repeated as needed


def main() -> None:
    serve("harness.worker", _prepare)


def serve(module: str, prepare: Prepare) -> None:
    """Run pyperf's script for the job on the command line; `prepare` is what one worker does."""
    runner = pyperf.Runner(
        program_args=("-m", module),
        add_cmdline_args=lambda command, given: command.extend(("--job", given.job)),
    )
    runner.argparser.add_argument("--job", required=True)
    given = runner.parse_args()
    job = _read(Path(given.job))
    for index, name in enumerate(job.workloads):
        time_runs: Callable[[int], float] = _never
        if given.worker and given.worker_task == index:
            notes: dict[str, float] = {}
            joules = Path(given.job).with_suffix(".joules")
            time_runs = prepare(job, of(job.recipe, name), notes, joules)
            runner.metadata.update({PREFIX + key: value for key, value in notes.items() if value})
        runner.bench_time_func(name, time_runs)


def _read(path: Path) -> Job:
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(Job).validate_json(path.read_bytes())


def _never(loops: int) -> float:
    raise RuntimeError("the manager process times nothing")


def _prepare(job: Job, run: Run, notes: dict[str, float], joules: Path) -> Callable[[int], float]:
    """Open the engine, check it, and note what it needed."""
    baseline = memory("VmRSS")
    checkpoint = _checkpoint(job)
    room = max(run.depth + run.tokens, CHECKED)
    session = engine.open_session(checkpoint, room=room, threads=job.threads, cores=job.cores)
    del checkpoint
    text = np.array(job.text, np.int64)
    check(session, text)
    notes.update(
        compile_seconds=session.compile_seconds,
        baseline_bytes=baseline,
        resident_bytes=session.arenas.resident_bytes,
        loaded_bytes=memory("VmRSS"),
        peak_bytes=memory("VmHWM"),
        clock_hz=clock(),
    )
    return _timer(session, run, text, joules)


def _checkpoint(job: Job) -> Checkpoint:
    if job.checkpoint:
        return checkpoints.load(Path(job.checkpoint))
    return make(job.recipe)


def check(session: engine.Session, text: Array) -> float:
    """Prefill and decode of the same tokens must give the same logits. Raises Mismatch."""
    tokens = np.resize(text, CHECKED)
    engine.reset(session)
    whole = engine.feed(session, tokens)
    engine.reset(session)
    for token in tokens:
        single = engine.step(session, int(token))
    scale = max(1.0, float(np.abs(whole).max()))
    error = float(np.abs(single - whole).max()) / scale
    if not error <= AGREEMENT:
        raise Mismatch(
            f"{session.name}: prefill and decode differ by {error:.1e}, allowed {AGREEMENT:.0e}; "
            f"not timed"
        )
    return error


def _timer(session: engine.Session, run: Run, text: Array, joules: Path) -> Callable[[int], float]:
    """loops -> seconds for that many runs, each from the same context."""
    engine.reset(session)
    if run.depth:
        engine.stand(session, text, run.depth)
    tokens = np.resize(np.roll(text, -run.depth), run.tokens)
    ids = [int(token) for token in tokens]

    def one() -> None:
        session.depth = run.depth
        if run.phase == "prefill":
            engine.feed(session, tokens)
        else:
            for token in ids:
                engine.step(session, token)

    metered.repeat(run.name, joules, one)

    def many(loops: int) -> float:
        stop = metered.watch(run.name, joules, loops)
        if run.depth == 0:
            engine.reset(session)
        begin = time.perf_counter()
        for _ in range(loops):
            one()
        seconds = time.perf_counter() - begin
        stop()
        return seconds

    return many


def memory(field: str) -> int:
    """VmRSS or VmHWM of this process [B]; 0 where the system does not tell.

    Not getrusage: ru_maxrss survives exec, so it would report the parent's peak.
    """
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith(f"{field}:")), 0)


def clock() -> float:
    from harness.machine import clock_hz  # noqa: PLC0415

    return clock_hz(0) or 0.0


if __name__ == "__main__":
    main()
