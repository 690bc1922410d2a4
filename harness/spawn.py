"""A pyperf script -> what it found: fresh worker processes, their samples and what they noted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyperf

from harness import host, metered
from harness.errors import WorkerFailed
from harness.metered import Joules
from harness.worker import PREFIX

OUTPUT = "out.json"  # pyperf's own file
KEPT: tuple[str, ...] = (
    "EDGEWISE_CACHE",
    "EDGEWISE_DATA",
    "EDGEWISE_PLUGINS",
    "EDGEWISE_PLAIN",
    "PYTHONPATH",
)
KEPT += ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "HOME", "XDG_CACHE_HOME", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to try: worker processes, values of each, and the least time of a value [s]."""

    processes: int = 3
    values: int = 4  # twelve samples in all: a 90th percentile needs ten
    warmups: int = 1
    shortest: float = 0.06
    timeout: float = 600.0  # of one candidate's workloads at one thread count

    @property
    def quick(self) -> bool:
        return self.processes < 2


QUICK = Effort(processes=1, values=2, shortest=0.02)


@dataclass(frozen=True, slots=True)
class Bench:
    """Seconds of each run, what the workers noted, and joules of each run where a meter is."""

    values: tuple[float, ...]
    facts: Mapping[str, float]
    joules: Joules | None


def run(module: str, job: Path, threads: int, effort: Effort, name: str) -> dict[str, Bench]:
    """What each benchmark of the module's script finds, by its name; OUTPUT is left beside the job.

    name: of the candidate, for errors. Raises WorkerFailed.
    """
    cores, output = host.affinity_for(threads), job.parent / OUTPUT
    command = [sys.executable, "-m", module, "--job", str(job), "--quiet"]
    command += ["-o", str(output), "--processes", str(effort.processes)]
    command += ["--values", str(effort.values), "--warmups", str(effort.warmups)]
    command += ["--min-time", str(effort.shortest), "--inherit-environ", ",".join(KEPT)]
    if cores:
        command += ["--affinity", ",".join(map(str, cores))]
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # so that a hanging worker dies with its manager
    ) as process:
        try:
            _, errors = process.communicate(timeout=effort.timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise WorkerFailed(
                    f"{name}: the timing worker hung and was stopped after {effort.timeout:.0f} s"
                ) from None
            raise
    if process.returncode:
        raise WorkerFailed(f"{name}: {reason(process.returncode, errors)}")
    suite, joules = (
        pyperf.BenchmarkSuite.load(str(output)),
        metered.read(job.with_suffix(".joules")),
    )
    return {
        bench.get_name(): Bench(bench.get_values(), _facts(bench), joules.get(bench.get_name()))
        for bench in suite.get_benchmarks()
    }


def reason(code: int, errors: str) -> str:
    """One line from a dead worker: out of memory, a signal, or its last error."""
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL) or "exit code -9" in errors
    if killed or "MemoryError" in errors or "ArrayMemoryError" in errors:
        return "the timing worker ran out of memory or was killed"
    told = [
        line for line in lines if re.match(r"(harness\.errors\.)?\w+(Error|Mismatch|\w+): ", line)
    ]
    last = told[0] if told else (lines[-1] if lines else "no message")
    return f"the timing worker failed ({code}): {last.removeprefix('harness.errors.')}"


def _facts(bench: pyperf.Benchmark) -> dict[str, float]:
    """Medians over the workers of what they noted."""
    found: dict[str, list[float]] = {}
    for run in bench.get_runs():
        for key, value in run.get_metadata().items():
            if key.startswith(PREFIX):
                found.setdefault(key.removeprefix(PREFIX), []).append(float(value))
    return {key: sorted(values)[len(values) // 2] for key, values in found.items()}
