"""Candidate + workloads -> rows measured on this host, each in fresh worker processes."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyperf

from harness import candidates, energy, host, memory, plugins, workload
from harness import checkpoint as checkpoints
from harness.engines.numba import plan
from harness.errors import WorkerFailed
from harness.records import (
    Checkpoint,
    Environment,
    Evidence,
    Failed,
    Measured,
    Quality,
    Recipe,
    Row,
    Workload,
)
from harness.worker import PREFIX, Job
from targets.profile import Device

KEPT: tuple[str, ...] = (
    "EDGEWISE_CACHE",
    "EDGEWISE_DATA",
    "EDGEWISE_PLUGINS",
    "EDGEWISE_PLAIN",
    "PYTHONPATH",
)
KEPT += ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "HOME", "XDG_CACHE_HOME", "LD_LIBRARY_PATH")
SAVED_BYTES = 2**30
FALLBACK_TEXT = b"The engine reads this sentence again and again while it is timed. "


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


def measure(
    checkpoint: Checkpoint,
    workloads: Sequence[str],
    threads: int,
    effort: Effort,
    *,
    environment: Environment,
    quality: Quality | None,
    device: Device | None = None,
    keep: Callable[[str, bytes], object] | None = None,
) -> list[Row]:
    """One row a workload. `device` models the energy when there is no meter.

    keep(name, content) stores pyperf's own file, for `pyperf stats`. Raises WorkerFailed when
    the worker dies, hangs or runs out of memory, DoesNotFit before it could.
    """
    runs = [workload.parse(name) for name in workloads]
    memory.require(checkpoint.recipe, runs, environment.memory_bytes)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as name:
        folder = Path(name)
        job = _job(checkpoint, workloads, threads, folder)
        suite = _spawn(job, folder, threads, effort, checkpoint.recipe.name)
        joules = _joules(folder / "job.joules")
        if keep is not None:
            slug = re.sub(r"[^a-z0-9.]+", "-", checkpoint.recipe.name)
            packed = gzip.compress((folder / "out.json").read_bytes(), mtime=0)
            keep(f"{slug}_{threads}t.json.gz", packed)
    after, weights = host.finished(environment), checkpoints.checkpoint_hash(checkpoint)
    rows = []
    for run in runs:
        bench = suite[run.name]
        spec = workload.build(checkpoint.recipe, checkpoint.shape, run, known=checkpoint.formats)
        seconds = Measured(samples=bench["values"], method="pyperf", flags=_flags(run, checkpoint))
        facts = bench["facts"]
        rows.append(
            Row(
                candidate=checkpoint.recipe.name,
                recipe_hash=checkpoints.recipe_hash(checkpoint.recipe),
                checkpoint_hash=weights,
                parameters=candidates.parameters(checkpoint.shape),
                device=environment.device or "host",
                workload=run.name,
                phase=run.phase,
                tokens=run.tokens,
                depth=run.depth,
                threads=threads,
                engine="numba",
                kernel_hash=plan.fingerprint(),
                seconds=seconds,
                joules=_energy(joules.get(run.name, ()), seconds, spec, device, threads),
                resident=Measured(samples=(facts["resident_bytes"],), method="counted"),
                quality=quality,
                environment=after,
                weight_bytes=spec.weight_bytes,
                state_bytes=spec.state_bytes,
                operations=spec.operations,
                compile_seconds=facts["compile_seconds"],
                peak=Measured(samples=(facts["peak_bytes"],), method="VmHWM")
                if "peak_bytes" in facts
                else None,
                baseline_bytes=int(facts.get("baseline_bytes", 0)) or None,
                seed=checkpoint.recipe.seed,
                quick=effort.quick,
                recipe=for_row(checkpoint.recipe),
            )
        )
    return rows


def for_row(recipe: Recipe) -> Recipe | None:
    """What a row keeps of public weights: all but where this machine has them."""
    if recipe.origin is None:
        return None
    folder = Path(recipe.origin.folder).name
    return replace(recipe, origin=replace(recipe.origin, folder=folder))


def _job(checkpoint: Checkpoint, workloads: Sequence[str], threads: int, folder: Path) -> Path:
    """Write the job, and the checkpoint unless it is large and random, or public: then workers
    make or read it."""
    path, made = "", checkpoint.recipe.origin is None
    size = sum(array.nbytes for array in checkpoint.arrays.values()) if made else 0
    if made and (checkpoint.provenance or size < SAVED_BYTES):
        path = str(folder / "weights.safetensors")
        checkpoints.save(checkpoint, Path(path))
    job = Job(
        recipe=checkpoint.recipe,
        checkpoint=path,
        workloads=tuple(workloads),
        threads=threads,
        cores=host.affinity_for(threads),
        text=_text(checkpoint),
    )
    target = folder / "job.json"
    target.write_text(json.dumps(asdict(job)), "utf-8")
    return target


def _text(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Real held-out tokens where the candidate has a corpus, else any."""
    vocabulary = checkpoint.shape.vocabulary
    if checkpoint.provenance and checkpoint.recipe.origin is None:
        splits = plugins.pick(plugins.corpora(), checkpoint.recipe.corpus, "corpus").load()
        return tuple(int(x) for x in splits.validation[:8192])
    return tuple((i * 7919) % vocabulary for i, _ in enumerate(FALLBACK_TEXT * 16))


def _spawn(
    job: Path, folder: Path, threads: int, effort: Effort, name: str
) -> dict[str, dict[str, Any]]:
    cores = host.affinity_for(threads)
    command = [sys.executable, "-m", "harness.worker", "--job", str(job), "--quiet"]
    command += ["-o", str(folder / "out.json"), "--processes", str(effort.processes)]
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
        raise WorkerFailed(f"{name}: {_reason(process.returncode, errors)}")
    suite = pyperf.BenchmarkSuite.load(str(folder / "out.json"))
    return {
        bench.get_name(): {"values": bench.get_values(), "facts": _facts(bench)}
        for bench in suite.get_benchmarks()
    }


def _reason(code: int, errors: str) -> str:
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


def _joules(path: Path) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            name, value = json.loads(line)
            found[name] = (*found.get(name, ()), value)
    return found


def _energy(
    samples: Sequence[float],
    seconds: Measured,
    spec: Workload,
    device: Device | None,
    threads: int,
) -> Evidence:
    if samples:
        return Measured(samples=tuple(samples), method="rapl, idle power included")
    if device is None:
        return Failed(reason="no energy meter, and no device profile to model it with")
    return energy.modelled(seconds, spec, device, threads)


def _flags(run: workload.Run, checkpoint: Checkpoint) -> tuple[str, ...]:
    beyond = run.depth + run.tokens > checkpoint.shape.context and checkpoint.provenance
    found = ("beyond trained context",) if beyond else ()
    return found + candidates.doubts(checkpoint.recipe.name)


def failed_row(
    recipe: Recipe,
    name: str,
    threads: int,
    reason: str,
    environment: Environment,
    quick: bool = False,
) -> Row:
    """The row of a point that could not be timed, with the reason."""
    run, failure = workload.parse(name), Failed(reason=reason)
    return Row(
        candidate=recipe.name,
        recipe_hash=checkpoints.recipe_hash(recipe),
        checkpoint_hash="",
        parameters=candidates.parameters(candidates.final_shape(recipe)),
        device=environment.device or "host",
        workload=run.name,
        phase=run.phase,
        tokens=run.tokens,
        depth=run.depth,
        threads=threads,
        engine="numba",
        kernel_hash=plan.fingerprint(),
        seconds=failure,
        joules=failure,
        resident=failure,
        quality=None,
        environment=environment,
        seed=recipe.seed,
        quick=quick,
        recipe=for_row(recipe),
    )
