"""A sweep's TOML -> rows: what is missing is made, scored and timed, the rest is left alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from pydantic.dataclasses import dataclass as checked

from harness import candidates, host, limits, memory, quality, store, toml, workload
from harness import checkpoint as checkpoints
from harness.engines.numba import plan as plans
from harness.errors import BadInput, CannotWrite, HarnessError, NoTokenizer
from harness.make import make
from harness.measure import failed_row, kernel_hash, measure
from harness.records import Checkpoint, Environment, Quality, Row
from harness.spawn import QUICK, Effort
from harness.verify import agree
from targets import profile
from targets.profile import Device

SWEEPS = Path(__file__).parent / "sweeps"
DEFAULT = SWEEPS / "default.toml"
SECONDS_A_PROCESS = 1.8  # start, load, warm up and time, on a small model
SECONDS_A_CANDIDATE = 4.0  # make, compile, score
SECONDS_BEFORE, TOKENS_A_SECOND = 20.0, 6000.0  # limits and figures; training


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Measure:
    """A block of points: every candidate x thread count x workload."""

    candidates: tuple[str, ...]
    workloads: tuple[str, ...]
    threads: tuple[int | str, ...] = (1,)


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Train:
    """What is trained in front of the user, and the loss it must reach."""

    candidate: str
    tokens: int
    bits_per_byte: float
    tolerance: float


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Projection:
    devices: tuple[str, ...] = ()


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Sweep:
    title: str
    corpus: str = "pydocs"
    measure: tuple[Measure, ...]
    train: Train | None = None
    project: Projection = field(default_factory=Projection)


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate at one thread count with the workloads that are timed together."""

    candidate: str
    threads: int
    workloads: tuple[str, ...]


class Watch(Protocol):
    """What a sweep tells while it runs: `stage` of the current point, then its rows."""

    def stage(self, point: Point, text: str, done: int, total: int) -> None: ...
    def rows(self, point: Point, rows: Sequence[Row]) -> None: ...


def load(path: Path, devices: Path | None = None) -> Sweep:
    """Read and check a sweep and every name in it. Raises BadInput, UnknownName.

    devices: a folder of the user's own device profiles
    """
    absent = f"sweep file {path} does not exist; see {DEFAULT.name} for one"
    sweep = toml.read(path, Sweep, absent)
    for point in expand(sweep, 1):
        recipe = candidates.parse(point.candidate, corpus=sweep.corpus)
        for name in point.workloads:
            workload.of(recipe, name)
    for name in sweep.project.devices:
        profile.load(name, devices)
    return sweep


def expand(sweep: Sweep, cores: int) -> list[Point]:
    """Points in the order of the file; blocks that name a candidate twice are joined."""
    found: dict[tuple[str, int], list[str]] = {}
    for block in sweep.measure:
        for candidate in block.candidates:
            for threads in block.threads:
                count = cores if threads == "all" else threads
                if not isinstance(count, int) or count < 1:
                    raise BadInput(f'threads must be numbers or "all", got {threads!r}')
                workloads = found.setdefault((candidate, count), [])
                workloads += [name for name in block.workloads if name not in workloads]
    return [Point(name, threads, tuple(w)) for (name, threads), w in found.items()]


def estimate(points: Sequence[Point], effort: Effort, train: Train | None = None) -> float:
    """Seconds the points may take, roughly: training, worker processes, making each candidate."""
    before = (SECONDS_BEFORE + train.tokens / TOKENS_A_SECOND) if train else SECONDS_BEFORE
    spawned = sum(len(p.workloads) for p in points) * (effort.processes + 1)
    names = {p.candidate for p in points}
    return before + SECONDS_A_PROCESS * spawned + SECONDS_A_CANDIDATE * len(names)


def run(
    sweep: Sweep,
    folder: Path,
    watch: Watch,
    *,
    quick: bool = False,
    only: Iterable[str] = (),
    devices: Path | None = None,
) -> list[Row]:
    """Do what is missing and write each row as it comes; returns the rows of this sweep.

    folder: where rows of this host go. only: candidates to do, all by default. A candidate that
    crashes, hangs or does not fit becomes Failure rows and the sweep goes on.
    """
    effort = QUICK if quick else Effort()
    environment = replace(host.describe(devices=devices), limits=limits.cached_limits())
    device = profile.load(environment.device, devices) if environment.device else None
    found: list[Row] = []
    wanted = set(only)
    scores: dict[str, Quality | None] = {}
    agreed: set[str] = set()
    for point in expand(sweep, environment.cores):
        if wanted and point.candidate not in wanted:
            continue
        rows = _do(point, sweep, folder, watch, effort, environment, device, scores, agreed)
        watch.rows(point, rows)
        found += rows
    return found


def _do(
    point: Point,
    sweep: Sweep,
    folder: Path,
    watch: Watch,
    effort: Effort,
    environment: Environment,
    device: Device | None,
    scores: dict[str, Quality | None],
    agreed: set[str],
) -> list[Row]:
    """The rows of one point: those there are, and those made now."""
    recipe = candidates.parse(point.candidate, corpus=sweep.corpus)
    kept: list[Row] = []
    try:
        runs = [workload.of(recipe, name) for name in point.workloads]
        memory.require(recipe, runs, environment.memory_bytes)
        checkpoint = make(recipe, lambda text, done, total: watch.stage(point, text, done, total))
        keys = _keys(point, checkpoint, environment, effort.quick)
        todo = tuple(w for w, key in keys.items() if not store.has(folder, key))
        kept = [
            store.load(folder / store.file_name(key)) for w, key in keys.items() if w not in todo
        ]
        if not todo:
            return kept
        if point.candidate not in scores:
            scores[point.candidate] = _score(checkpoint, point, watch)
        if point.candidate not in agreed:
            watch.stage(point, "compare with PyTorch", 0, 1)
            if checkpoint.provenance and importlib.util.find_spec("torch"):
                agree(checkpoint)
            agreed.add(point.candidate)
        watch.stage(point, "time", 0, 1)
        rows = measure(
            checkpoint,
            todo,
            point.threads,
            effort,
            environment=environment,
            quality=scores[point.candidate],
            device=device,
            keep=lambda name, content: store.write_bytes(folder.parent / "pyperf" / name, content),
        )
    except (HarnessError, MemoryError, ImportError, OSError, RuntimeError) as error:
        if isinstance(error, CannotWrite):
            raise  # no row could be kept
        reason = " ".join(str(error).split()) or "ran out of memory"
        missed = [name for name in point.workloads if name not in {row.workload for row in kept}]
        rows = [
            failed_row(recipe, w, point.threads, reason, environment, effort.quick) for w in missed
        ]
    return kept + [_kept(folder, row) for row in rows]


def _score(checkpoint: Checkpoint, point: Point, watch: Watch) -> Quality | None:
    """None for random weights, and for text that cannot be turned into the model's tokens."""
    if not checkpoint.provenance:
        return None
    try:
        return quality.score(
            checkpoint, progress=lambda done, total: watch.stage(point, "score", done, total)
        )
    except NoTokenizer as error:
        watch.stage(point, f"not scored: {error}", 0, 1)
        return None


def _kept(folder: Path, row: Row) -> Row:
    store.write(folder, row)
    return row


def _keys(
    point: Point, checkpoint: Checkpoint, environment: Environment, quick: bool
) -> dict[str, store.Key]:
    """What names the row of each of the point's workloads."""
    key = store.Key(
        candidate=checkpoint.recipe.name,
        recipe_hash=checkpoints.recipe_hash(checkpoint.recipe),
        checkpoint_hash=checkpoints.checkpoint_hash(checkpoint),
        workload="",
        engine="numba",
        threads=point.threads,
        host=environment.host,
        device=environment.device or "host",
        kernel_hash=plans.fingerprint(),
        quick=quick,
    )
    engines = {name: workload.engine_of(workload.parse(name).phase) for name in point.workloads}
    return {
        name: replace(key, workload=name, engine=engine, kernel_hash=kernel_hash(engine))
        for name, engine in engines.items()
    }
