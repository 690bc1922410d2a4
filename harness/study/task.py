"""One base training with all that derives from it -> trials; what a worker does."""

from __future__ import annotations

import importlib.metadata
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from harness import candidates, host, store
from harness import checkpoint as checkpoints
from harness.engines.numba import plan as plans
from harness.engines.numba import session as engine
from harness.errors import CannotWrite, HarnessError
from harness.make import make
from harness.records import Checkpoint, Recipe
from harness.study import protocols, rows, timing
from harness.study.frame import Trial
from harness.study.plan import STEP_TIME, Point, corpus_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one worker does without a break, so that nothing is trained twice.

    key: names it among others; base: what is trained; None where steps are timed
    needs: checkpoints of teachers, by the file they must be found in
    shared: others need the base's checkpoint
    """

    key: str
    name: str
    base: Recipe | None
    points: tuple[Point, ...] = ()
    needs: tuple[str, ...] = ()
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Trials in the order of the task's points; checkpoint files that others need, by name."""

    trials: tuple[Trial, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)


def do(task: Task, files: Mapping[str, bytes], folder: Path | None) -> Outcome:
    """Make and score what is missing. What goes wrong becomes a trial that says so.

    files: of teachers. folder: of the study's rows, where the worker shares the disk; each trial
    is stored there as soon as it is known, and none that is there is done again.
    """
    from harness.training.turns import one_thread  # noqa: PLC0415 - needs PyTorch

    one_thread()
    _code()
    for name, content in files.items():
        store.write_bytes(_checkpoints() / name, content)
    trials = []
    broken = _guarded(partial(make, task.base)) if task.base else ""
    for point in task.points:
        trial = rows.done(folder, point) if folder else None
        if trial is None:
            trial = failure(point, broken) if broken else _trial(point)
            if folder:
                rows.write(folder, point, trial)
        trials.append(trial)
    made: dict[str, bytes] = {}
    if task.shared and task.base is not None and not broken:
        name = checkpoints.file_name(task.base)
        path = checkpoints.find(task.base)
        made = {name: path.read_bytes()} if path else {}
    return Outcome(trials=tuple(trials), files=made)


def failure(point: Point, reason: str) -> Trial:
    """The row of a trial that could not be had."""
    return replace(_asked(point), failed=" ".join(reason.split())[:300] or "no reason was given")


def _guarded(work: Callable[[], object]) -> str:
    """Do it; why it failed, or ""."""
    try:
        work()
    except CannotWrite:
        raise  # no row could be kept either
    except (HarnessError, ImportError, OSError) as error:
        return str(error) or type(error).__name__
    except MemoryError:
        return "ran out of memory"
    except Exception as error:  # a bug, which must not end hours of other trials
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return ""


def _trial(point: Point) -> Trial:
    found: list[Trial] = []
    how = _timed if point.protocol == STEP_TIME else _scored
    reason = _guarded(lambda: found.append(how(point)))
    return found[0] if found else failure(point, reason)


def _scored(point: Point) -> Trial:
    """Raises what making and scoring raise."""
    checkpoint = make(point.recipe)
    begin = time.perf_counter()
    scored = protocols.PROTOCOLS[point.protocol](checkpoint)
    seconds = time.perf_counter() - begin
    found, known = scored.quality, checkpoint.provenance
    with engine.open_session(checkpoint, room=checkpoint.shape.context) as session:
        resident = session.arenas.resident_bytes
    base = candidates.base(point.recipe)
    teacher = candidates.teacher(point.recipe)
    steps = max(1, round(base.tokens / (base.batch * base.shape.context)))
    seen = steps * base.batch * base.shape.context
    return replace(
        _asked(point),
        metric=found.metric,
        value=found.value,
        standard_error=found.standard_error,
        tokens_scored=found.scored,
        figures={**protocols.figures(found), **scored.figures},
        curves=scored.curves,
        flags=found.flags,
        checkpoint_hash=checkpoints.checkpoint_hash(checkpoint),
        trained_on=found.trained_on,
        parameters=candidates.parameters(checkpoint.shape),
        formats=_formats(checkpoint),
        resident_bytes=resident,
        training_steps=steps,
        tokens=seen,
        characters=None if protocols.generated(base.corpus) else seen,
        finetuning_tokens=int(known.get("finetuning_tokens", 0)),
        teacher=teacher.name if teacher else "",
        teacher_tokens=teacher.tokens if teacher else 0,
        training_seconds=float(known.get("seconds", 0.0)),
        scoring_seconds=round(seconds, 3),
    )


def _timed(point: Point) -> Trial:
    """Raises what building and training raise."""
    if point.against is None:
        raise ValueError(f"{point.recipe.name} is timed against nothing")
    samples = timing.side_by_side(point.recipe, point.against, point.rounds)
    ratios = np.array(samples.theirs) / np.array(samples.ours)
    return replace(
        _asked(point),
        metric="ratio of training throughput",
        value=float(np.median(ratios)),
        standard_error=float(ratios.std(ddof=1) / len(ratios) ** 0.5) if len(ratios) > 1 else 0.0,
        figures={
            "ratio": float(np.median(ratios)),
            "ours": float(np.median(samples.ours)),
            "theirs": float(np.median(samples.theirs)),
        },
        curves={
            "ours": tuple((float(i), s, 0.0) for i, s in enumerate(samples.ours)),
            "theirs": tuple((float(i), s, 0.0) for i, s in enumerate(samples.theirs)),
        },
        parameters=candidates.parameters(point.recipe.shape),
        engine="torch",
    )


def _asked(point: Point) -> Trial:
    """All that is known of a trial before it is done."""
    recipe = point.recipe
    described = host.describe()
    commit, dirty = _code()
    return Trial(
        recipe=recipe,
        recipe_hash=checkpoints.recipe_hash(recipe),
        seed=recipe.seed,
        protocol=point.protocol,
        corpus=recipe.corpus,
        corpus_hash=corpus_hash(recipe.corpus),
        learning_rate=recipe.learning_rate,
        rates_tried=point.rates,
        rates_corpus=point.rates_corpus,
        against=point.against,
        kernel_hash=plans.fingerprint(),
        commit=commit,
        dirty=dirty,
        versions={**described.versions, "torch": importlib.metadata.version("torch")},
        machine=f"{described.cpu}, {platform.machine()}",
        started=described.started,
    )


@cache
def _code() -> tuple[str, bool]:
    """Commit of what this process runs, asked when it begins: the files may change meanwhile."""
    return host.checkout()


def _formats(checkpoint: Checkpoint) -> dict[str, int]:
    """How many weights each format stores."""
    found: dict[str, int] = {}
    for name, tensor in candidates.tensors(checkpoint.shape).items():
        form = checkpoint.formats.get(name, "f32")
        count: Any = np.prod(tensor.shape)
        found[form] = found.get(form, 0) + int(count)
    return found


def _checkpoints() -> Path:
    return checkpoints.folder() / "checkpoints"
