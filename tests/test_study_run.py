"""A study runs in processes here or on a cluster, and a worker that is killed costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest

from harness import checkpoint as checkpoints
from harness.study import crew as crews
from harness.study import plan, rows, runner, schedule, task, timing
from harness.study.frame import Arm, Study

pytest.importorskip("torch")

RECALL = Arm(
    name="recall",
    candidate="mcsd:nano",
    corpus="recall",
    tokens=2000,
    seeds=2,
    set={"layers": 1, "mixers": ("mcsd",), "width": 32, "hidden": 32, "context": 32, "batch": 4},
    steps=("int8",),
)


@pytest.fixture
def cache(tmp_path, monkeypatch, cache_folder):
    """Checkpoints of its own; compiled plans are those of the whole run."""
    home = tmp_path / "cache"
    home.mkdir()
    (cache_folder / "plans").mkdir(exist_ok=True)
    (home / "plans").symlink_to(cache_folder / "plans")
    monkeypatch.setenv("EDGEWISE_CACHE", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return home


@pytest.fixture
def study():
    return Study(title="small", arm=(RECALL,))


def essence(trial):
    """What may not depend on where a trial ran, or on what happened meanwhile."""
    assert not trial.failed, trial.failed
    code = dict(commit="", dirty=False, kernel_hash="")  # of files that somebody may be editing
    return replace(trial, started="", training_seconds=0.0, scoring_seconds=0.0, **code)


def run(study, folder, crew):
    done = []
    tasks = schedule.tasks(plan.points(study), folder)
    runner.run(tasks, crew, folder, lambda one, outcome: done.append(one.key))
    return done


def here(study, folder):
    """The same trials, made in this process."""
    return [
        trial
        for one in schedule.tasks(plan.points(study), folder)
        for trial in task.do(one, {}, folder).trials
    ]


def test_a_trial_answers_what_a_sceptic_asks(study, cache, tmp_path):
    first = here(study, tmp_path / "rows")
    plain, packed = first[0], first[1]
    assert not plain.failed, plain.failed
    assert (plain.metric, plain.protocol, plain.seed) == ("accuracy", "windows", 0)
    assert plain.value == plain.figures["accuracy"]
    assert plain.tokens == plain.training_steps * 4 * 32
    assert plain.characters is None
    assert plain.trained_on == plain.corpus_hash
    assert packed.formats["int8"] > packed.formats["f32"]
    assert packed.resident_bytes < plain.resident_bytes
    assert packed.checkpoint_hash != plain.checkpoint_hash
    assert packed.recipe.steps == ("int8",)
    assert plain.commit or plain.versions["edgewise"]
    stored = rows.read(tmp_path / "rows", plan.points(study))
    assert list(stored.values()) == first


def test_what_is_there_is_not_done_again(study, cache, tmp_path):
    here(study, tmp_path / "rows")
    assert schedule.tasks(plan.points(study), tmp_path / "rows") == []
    lost = next((tmp_path / "rows").glob("*int8*s1*"))
    lost.write_text(lost.read_text()[:100])  # a file cut short by a full disk
    (again,) = schedule.tasks(plan.points(study), tmp_path / "rows")
    assert [(p.recipe.name, p.recipe.seed) for p in again.points] == [("mcsd:nano@int8", 1)]


def test_what_is_forgotten_is_made_anew_but_not_what_it_derives_from(study, cache, tmp_path):
    first = here(study, tmp_path / "rows")
    weights = set((cache / "checkpoints").iterdir())
    points = plan.points(study)
    assert schedule.forget(points, "mcsd:nano@*", tmp_path / "rows") == 2
    left = set((cache / "checkpoints").iterdir())
    assert len(weights) - len(left) == 2
    assert not any("int8" in path.name for path in left)
    again = [t for one in schedule.tasks(points, tmp_path / "rows") for t in one.points]
    assert {point.recipe.steps for point in again} == {("int8",)}
    here(study, tmp_path / "rows")
    found = rows.read(tmp_path / "rows", points).values()
    assert list(map(essence, found)) == list(map(essence, first))


def test_a_failed_trial_is_a_row_and_is_tried_again(study, cache, tmp_path, monkeypatch):
    broken = replace(study.arm[0], set={**RECALL.set, "learning_rate": 1e30}, seeds=1)
    other = Study(title="breaks", arm=(broken, replace(broken, name="good", set=RECALL.set)))
    trials = here(other, tmp_path / "rows")
    assert [bool(trial.failed) for trial in trials] == [True, True, False, False]
    assert "try a smaller one" in trials[0].failed
    assert trials[0].value is None
    assert [len(t.points) for t in schedule.tasks(plan.points(other), tmp_path / "rows")] == [2]


def test_a_killed_process_costs_nothing(study, cache, tmp_path):
    expected = [essence(trial) for trial in here(study, tmp_path / "undisturbed")]
    for path in (cache / "checkpoints").iterdir():
        path.unlink()
    with crews.local(2) as crew:
        killer = threading.Thread(target=kill_one)
        killer.start()
        run(study, tmp_path / "rows", crew)
        killer.join()
    found = rows.read(tmp_path / "rows", plan.points(study)).values()
    assert [essence(trial) for trial in found] == expected


def kill_one():
    """End a worker as soon as it has made its first checkpoint."""
    made = checkpoints.folder() / "checkpoints"
    end = time.monotonic() + 120
    while time.monotonic() < end and not any(made.glob("*.safetensors")):
        time.sleep(0.01)
    max(spawned(psutil.Process()), key=lambda p: sum(p.cpu_times()[:2])).kill()


ORPHANS = """
import time
from harness.study import crew as crews
if __name__ == "__main__":
    with crews.local(1) as crew:
        crew.executor.submit(time.sleep, 600)
        print("started", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_workers_end_with_the_run_that_started_them(tmp_path, sign):
    script = tmp_path / "run.py"
    script.write_text(ORPHANS)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout.readline() == "started\n"
        workers = wait_for(lambda: spawned(psutil.Process(run.pid)))
        time.sleep(1.0)  # it is asleep in its task, or about to be
        run.send_signal(sign)
        run.wait(30)
        assert psutil.wait_procs(workers, timeout=30)[1] == []


def wait_for(look):
    end = time.monotonic() + 60
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def spawned(process):
    return [p for p in process.children() if "spawn_main" in " ".join(p.cmdline())]


def test_a_wider_stack_takes_longer_in_turns(study, cache):
    narrow = plan.recipe(RECALL, "", 0)
    wide = plan.recipe(replace(RECALL, set={**RECALL.set, "width": 256, "hidden": 512}), "", 0)
    found = timing.side_by_side(narrow, wide, 3)
    assert len(found.ours) == len(found.theirs) == 3
    assert min(found.theirs) > 1.5 * min(found.ours)


def test_a_task_whose_worker_dies_each_time_fails_alone(study, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "do", die_for_seed_1)
    with crews.local(2) as crew:
        run(study, tmp_path / "rows", crew)
    found = rows.read(tmp_path / "rows", plan.points(study)).values()
    assert [(t.seed, "died" in t.failed) for t in found] == [(0, False)] * 2 + [(1, True)] * 2


def test_a_pool_that_breaks_between_two_tasks_is_made_anew(study, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "do", not_tried)
    with ThreadPoolExecutor(1) as good:
        crew = crews.Crew(1, True, lambda: good, Broken())
        assert len(run(study, tmp_path / "rows", crew)) == 2
        assert crew.executor is good


class Broken:
    """An executor whose worker has died."""

    def submit(self, *words):
        raise BrokenExecutor("a worker died")

    def shutdown(self, **how):
        pass


def not_tried(one, files, folder):
    return task.Outcome(trials=tuple(task.failure(p, "not tried") for p in one.points))


def die_for_seed_1(one, files, folder):
    if one.base.seed == 1:
        os._exit(1)
    return not_tried(one, files, folder)


def test_a_cluster_does_the_same_and_survives_a_killed_worker(study, cache, tmp_path):
    distributed = pytest.importorskip("distributed")
    expected = [essence(trial) for trial in here(study, tmp_path / "undisturbed")]
    for path in (cache / "checkpoints").iterdir():
        path.unlink()
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        crews.cluster(cluster.scheduler_address) as crew,
    ):
        assert crew.width == 2
        assert not crew.shared
        killer = threading.Thread(target=kill_one)
        killer.start()
        run(study, tmp_path / "rows", crew)
        killer.join()
    found = rows.read(tmp_path / "rows", plan.points(study)).values()
    assert [essence(trial) for trial in found] == expected
