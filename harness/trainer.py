"""Time optimiser steps in fresh, pinned processes: `python -m harness.trainer --job FILE -o FILE`.

The script of pyperf that harness.worker is, with PyTorch: what is timed is the loop that trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness import metered, worker
from harness.worker import Job
from harness.workload import Run


def main() -> None:
    worker.serve("harness.trainer", _prepare)


def _prepare(job: Job, run: Run, notes: dict[str, float], joules: Path) -> Callable[[int], float]:
    """Take a step, so that everything is compiled and in memory, and note what it holds."""
    from harness.training import turns  # noqa: PLC0415 - brings PyTorch

    baseline = worker.memory("VmRSS")
    held, steps = turns.held(job.recipe), turns.clocked(job.recipe, job.threads)
    steps(1, lambda: None)
    notes.update(
        baseline_bytes=baseline,
        resident_bytes=held.total,
        loaded_bytes=worker.memory("VmRSS"),
        peak_bytes=worker.memory("VmHWM"),
        clock_hz=worker.clock(),
    )

    def many(loops: int) -> float:
        stamps: list[float] = []
        stops: list[Callable[[], None]] = []

        def mark() -> None:
            stamps.append(time.perf_counter())
            for stop in stops:
                stop()
            stops.append(metered.watch(run.name, joules, loops))
            stamps.append(time.perf_counter())

        steps(loops, mark)
        _, begin, end, _ = stamps
        return end - begin

    return many


if __name__ == "__main__":
    main()
