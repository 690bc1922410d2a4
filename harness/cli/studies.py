"""What `sweep` and `publish` do with a study: run its tasks, write its answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness import sweep
from harness.cli.screen import bars, devices_folder, note
from harness.study import crew as crews
from harness.study import estimate, loading, plan, publish, rows, runner, schedule
from harness.study.crew import Crew

if TYPE_CHECKING:
    from rich.progress import Progress

    from harness.study.task import Outcome, Task


def find(file: Path | None) -> Path | None:
    """The study that a path, or the name of one of ours, stands for; None for another sweep."""
    if file is None:
        return None
    path = file if file.exists() else sweep.SWEEPS / file.name
    return path if loading.is_study(path) else None


def run(
    path: Path,
    results: Path,
    *,
    jobs: int,
    address: str | None,
    only: str | None,
    again: str | None,
    dry_run: bool,
) -> None:
    """Do what is missing, then write tables, figures and the answer.

    only: names of arms to do; again: names of candidates to make anew; both shell patterns
    """
    study = loading.load(path, devices_folder())
    folder = results / path.stem
    points = plan.points(study, only or "*")
    if again and not dry_run:
        note(f"{schedule.forget(points, again, folder / 'rows')} trials are done again")
    tasks = schedule.tasks(points, folder / "rows")
    missing = sum(len(task.points) for task in tasks)
    print(f"{study.title}\n{len(points)} trials, {missing} missing, in {len(tasks)} tasks")
    begin = time.perf_counter()
    if tasks:
        with _crew(jobs, address) as crew:
            note("timing a few steps of each stack ...")
            seconds = estimate.seconds(tasks, crew.width)
            print(f"about {_duration(sum(seconds.values()))}, {crew.width} at a time")
            if dry_run:
                for task in tasks:
                    print(f"  {task.name}: {len(task.points)} trials")
                return
            with bars() as progress:
                watch = _Watch(progress, seconds)
                runner.run(tasks, crew, folder / "rows", watch)
    if not dry_run:
        write(path, results)
        note(f"{_duration(time.perf_counter() - begin)} in all")


def write(path: Path, results: Path) -> None:
    """Everything that follows from the rows there are, and the answer on the screen."""
    study = loading.load(path, devices_folder())
    folder = results / path.stem
    trials = rows.read(folder / "rows", plan.points(study))
    command = f"edgewise publish {path.name}"
    made = publish.publish(study, trials, folder, command, devices_folder())
    for line in made.answer:
        print(line)
    for missed in made.missed:
        note(f"edgewise: {missed}")
    for one in made.paths:
        note(f"wrote {one}")


@contextmanager
def _crew(jobs: int, address: str | None) -> Iterator[Crew]:
    if address is not None:
        with crews.cluster(address) as crew:
            yield crew
        return
    # what is spawned computes on one thread each
    os.environ["OMP_NUM_THREADS"] = "1"
    with crews.local(jobs) as crew:
        yield crew


class _Watch:
    """A bar in seconds of the estimate; what fails is said at once."""

    def __init__(self, progress: Progress, seconds: dict[str, float]) -> None:
        self.progress, self.seconds = progress, seconds
        self.bar = progress.add_task("seconds", total=round(sum(seconds.values())))

    def __call__(self, task: Task, outcome: Outcome) -> None:
        self.progress.advance(self.bar, self.seconds[task.key])
        self.progress.update(self.bar, description=task.name)
        for reason in {trial.failed for trial in outcome.trials if trial.failed}:
            note(f"edgewise: {task.name}: {reason}")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
