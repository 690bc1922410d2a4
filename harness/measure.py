"""Candidate + workloads -> rows measured on this host, each in fresh worker processes."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

from harness import candidates, energy, host, memory, plugins, spawn, workload
from harness import checkpoint as checkpoints
from harness.engines.numba import plan
from harness.metered import Joules
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
from harness.spawn import Effort
from harness.worker import Job
from targets.profile import Device

SAVED_BYTES = 2**30
WORKERS = {"numba": "harness.worker", "torch": "harness.trainer"}  # by engine
FALLBACK_TEXT = b"The engine reads this sentence again and again while it is timed. "


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
    recipe, shape = checkpoint.recipe, checkpoint.shape
    runs = [workload.of(recipe, name) for name in workloads]
    memory.require(recipe, runs, environment.memory_bytes)
    weights, rows = checkpoints.checkpoint_hash(checkpoint), []
    for engine, module in WORKERS.items():
        mine = [run for run in runs if workload.engine_of(run.phase) == engine]
        found = _spawned(checkpoint, mine, threads, effort, module, keep) if mine else {}
        after = host.finished(environment)
        for run in mine:
            bench, facts = found[run.name], found[run.name].facts
            spec = workload.build(recipe, shape, run, known=checkpoint.formats)
            seconds = Measured(samples=bench.values, method="pyperf", flags=_flags(run, checkpoint))
            peak = facts.get("peak_bytes")
            rows.append(
                Row(
                    candidate=recipe.name,
                    recipe_hash=checkpoints.recipe_hash(recipe),
                    checkpoint_hash=weights,
                    parameters=candidates.parameters(shape),
                    device=environment.device or "host",
                    workload=run.name,
                    phase=run.phase,
                    tokens=run.tokens,
                    depth=run.depth,
                    threads=threads,
                    engine=engine,
                    kernel_hash=kernel_hash(engine),
                    seconds=seconds,
                    joules=_energy(bench.joules, seconds, spec, device, threads),
                    resident=Measured(samples=(facts["resident_bytes"],), method="counted"),
                    quality=quality,
                    environment=after,
                    weight_bytes=spec.weight_bytes,
                    state_bytes=spec.state_bytes,
                    operations=spec.operations,
                    compile_seconds=facts.get("compile_seconds"),
                    peak=Measured(samples=(peak,), method="VmHWM") if peak else None,
                    baseline_bytes=int(facts.get("baseline_bytes", 0)) or None,
                    seed=recipe.seed,
                    quick=effort.quick,
                    recipe=for_row(recipe),
                )
            )
    return sorted(rows, key=lambda row: [run.name for run in runs].index(row.workload))


def kernel_hash(engine: str) -> str:
    """What names the code that an engine is timed with."""
    return plan.fingerprint() if engine == "numba" else f"torch {metadata.version('torch')}"


def _spawned(
    checkpoint: Checkpoint,
    runs: Sequence[workload.Run],
    threads: int,
    effort: Effort,
    module: str,
    keep: Callable[[str, bytes], object] | None,
) -> dict[str, spawn.Bench]:
    """What a worker's module finds, by workload."""
    with tempfile.TemporaryDirectory(prefix="edgewise-") as name:
        folder = Path(name)
        job = _job(checkpoint, [run.name for run in runs], threads, folder)
        found = spawn.run(module, job, threads, effort, checkpoint.recipe.name)
        if keep is not None:
            slug = re.sub(r"[^a-z0-9.]+", "-", checkpoint.recipe.name)
            slug += "-train" if module != WORKERS["numba"] else ""
            packed = gzip.compress((folder / spawn.OUTPUT).read_bytes(), mtime=0)
            keep(f"{slug}_{threads}t.json.gz", packed)
    return found


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


def _energy(
    metered: Joules | None,
    seconds: Measured,
    spec: Workload,
    device: Device | None,
    threads: int,
) -> Evidence:
    if metered is not None:
        return Measured(
            samples=metered.samples,
            method=f"{metered.method}, idle power included",
            flags=(f"{metered.idle_watts:.3g} W at rest",),
        )
    if device is None:
        return Failed(reason="no energy meter, and no device profile to model it with")
    return energy.modelled(seconds, spec, device, threads)


def _flags(run: workload.Run, checkpoint: Checkpoint) -> tuple[str, ...]:
    beyond = run.depth + run.tokens > checkpoint.shape.context and checkpoint.provenance
    found = ("beyond trained context",) if beyond and run.phase != "train" else ()
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
    run, failure = workload.of(recipe, name), Failed(reason=reason)
    engine = workload.engine_of(run.phase)
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
        engine=engine,
        kernel_hash=kernel_hash(engine),
        seconds=failure,
        joules=failure,
        resident=failure,
        quality=None,
        environment=environment,
        seed=recipe.seed,
        quick=quick,
        recipe=for_row(recipe),
    )
