"""Candidate -> nanoseconds of each stage of each decoded token: `python -m harness.stages JOB`.

A fresh process without torch, because the stage-timed build is chosen when `kernels.laps` is
imported: with EDGEWISE_LAPS=1 in its environment it times stages, without it whole steps only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness import candidates, make
from harness.cores import pin
from harness.engines.numba import session as engine
from harness.errors import WorkerFailed
from harness.records import Array
from kernels import laps

WARMUP = 16  # tokens decoded before the clock counts
TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Decode `tokens` tokens from context depth `depth`, again and again for `seconds`.

    text: token ids to feed, repeated as needed; the candidate's checkpoint must have been made
    """

    candidate: str
    text: tuple[int, ...]
    tokens: int
    depth: int
    threads: int
    cores: tuple[int, ...]
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Times:
    """steps (n,): whole decode steps as Python sees them; laps (n, stages): 0 when untimed [s]."""

    steps: Array
    laps: Array


def decode(job: Job) -> Times:
    """Run the job in this process; at least one round of its tokens."""
    checkpoint = make.make(candidates.parse(job.candidate))
    if len(job.cores) == job.threads:
        pin(job.cores)
    room = job.depth + max(job.tokens, WARMUP)
    with engine.open_session(
        checkpoint, room=room, threads=job.threads, cores=job.cores
    ) as session:
        del checkpoint
        if job.depth:
            engine.feed(session, np.resize(np.array(job.text, np.int64), job.depth))
        ids = [int(token) for token in np.resize(job.text, job.tokens)]
        for token in np.resize(ids, WARMUP):
            engine.step(session, int(token))
        return _rounds(session, job, ids)


def _rounds(session: engine.Session, job: Job, ids: Sequence[int]) -> Times:
    block = session.crew.block
    steps: list[int] = []
    stages: list[Array] = []
    end = time.perf_counter() + job.seconds
    while not steps or time.perf_counter() < end:
        session.depth = job.depth
        if job.depth == 0:
            engine.reset(session)
        laps.read(block)
        for token in ids:
            begin = time.perf_counter_ns()
            engine.step(session, token)
            steps.append(time.perf_counter_ns() - begin)
            stages.append(laps.read(block))
    return Times(np.array(steps) * 1e-9, np.array(stages) * 1e-9)


def run(job: Job, *, timed: bool) -> Times:
    """Run the job in a process of its own, by stages when `timed`. Raises WorkerFailed."""
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        path = write(job, Path(folder))
        out = path.with_suffix(".npz")
        try:
            done = subprocess.run(
                [*command(path), str(out)],
                env=environment({laps.VARIABLE: "1" if timed else "0"}),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise WorkerFailed(
                f"{job.candidate}: decoding hung and was stopped after {TIMEOUT_SECONDS:.0f} s"
            ) from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it was killed; out of memory?"])[-1]
            raise WorkerFailed(
                f"{job.candidate}: the decoding process failed ({done.returncode}): {last}"
            )
        with np.load(out) as arrays:
            return Times(arrays["steps"], arrays["laps"])


def write(job: Job, folder: Path) -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)), "utf-8")
    return path


def command(job: Path) -> list[str]:
    """How to run a written job; the result is thrown away unless a path for it follows."""
    return [sys.executable, "-m", "harness.stages", str(job)]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, in which the harness is found from any folder."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, **more}


def main() -> None:
    job = Job(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    times = decode(job)
    if len(sys.argv) > 2:
        np.savez(sys.argv[2], steps=times.steps, laps=times.laps)


if __name__ == "__main__":
    main()
