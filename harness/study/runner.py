"""Tasks + crew -> trials, in whatever order they come; a worker that dies costs only its task."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from pathlib import Path

from harness import checkpoint as checkpoints
from harness import store
from harness.study import crew as crews
from harness.study import rows
from harness.study.crew import Crew
from harness.study.schedule import alone
from harness.study.task import Outcome, Task, do, failure

TRIES = 3  # of a task whose worker dies

Watch = Callable[[Task, Outcome], None]
Running = dict["Future[Outcome]", Task]


def run(tasks: Sequence[Task], crew: Crew, folder: Path, watch: Watch) -> None:
    """Do every task, store its trials in `folder`, and tell `watch` of each.

    A task runs once the teachers it needs are there, and by itself where it must, or where its
    worker has died before: so that no other task is blamed for that.
    """
    waiting = deque(tasks)
    deaths: Counter[str] = Counter()
    running: Running = {}
    while waiting or running:
        _fill(waiting, running, crew, folder, deaths)
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        broken = False
        for future in finished:
            task = running.pop(future)
            outcome, dead = _outcome(future, task)
            broken = broken or dead
            if dead:
                deaths[task.key] += 1
                if deaths[task.key] < TRIES:
                    waiting.append(task)
                    continue
            _keep(task, outcome, folder)
            watch(task, outcome)
        if broken:
            _requeue(running, waiting, deaths)
            crews.renew(crew)


def _fill(
    waiting: deque[Task], running: Running, crew: Crew, folder: Path, deaths: Mapping[str, int]
) -> None:
    """Start what can be started."""
    for task in list(waiting):
        single = alone(task) or bool(deaths.get(task.key))
        busy_alone = any(alone(t) or deaths.get(t.key) for t in running.values())
        if len(running) >= crew.width or busy_alone:
            return
        if single and running:
            continue
        due = {checkpoints.file_name(t.base) for t in (*waiting, *running.values()) if t.base}
        if any(name in due and not _here(name) for name in task.needs):
            continue
        waiting.remove(task)
        files = {} if crew.shared else _files(task.needs)
        place = folder if crew.shared else None
        try:
            running[crew.executor.submit(do, task, files, place)] = task
        except BrokenExecutor:  # a worker died just now; those that ran beside it will say so
            waiting.appendleft(task)
            if not running:
                crews.renew(crew)
            return


def _outcome(future: Future[Outcome], task: Task) -> tuple[Outcome, bool]:
    """What a task left, and whether its worker died."""
    try:
        return future.result(), False
    except BrokenExecutor:
        return _failed(task, f"its process died {TRIES} times; out of memory?"), True
    except Exception as error:
        if type(error).__name__ == "KilledWorker":  # distributed may not be installed
            return _failed(task, f"its worker died again and again: {error}"), False
        raise


def _failed(task: Task, reason: str) -> Outcome:
    return Outcome(trials=tuple(failure(point, reason) for point in task.points))


def _requeue(running: Running, waiting: deque[Task], deaths: Counter[str]) -> None:
    """What ran in the pool that broke starts again, by itself."""
    for task in running.values():
        deaths[task.key] += 1
        waiting.append(task)
    running.clear()


def _keep(task: Task, outcome: Outcome, folder: Path) -> None:
    for point, trial in zip(task.points, outcome.trials, strict=True):
        rows.write(folder, point, trial)
    for name, content in outcome.files.items():
        if not _here(name):
            store.write_bytes(checkpoints.folder() / "checkpoints" / name, content)


def _here(name: str) -> bool:
    return any((place / name).exists() for place in _places())


def _files(names: Sequence[str]) -> dict[str, bytes]:
    """Those checkpoints that are there; a task whose teacher failed says so itself."""
    found = {}
    for name in names:
        for place in _places():
            if (place / name).exists():
                found[name] = (place / name).read_bytes()
                break
    return found


def _places() -> tuple[Path, ...]:
    return checkpoints.folder() / "checkpoints", checkpoints.SHIPPED
