"""A sweep does what is missing, keeps what is there, and survives what breaks."""

from dataclasses import replace

import pytest

from harness import candidates, measure, store, sweep
from harness.errors import BadInput, Mismatch, UnknownName, WorkerFailed
from harness.records import Failed, Measured
from harness.spawn import Effort
from tests import rows as fake

TEXT = """
title = "two"
[[measure]]
candidates = ["attention:nano", "mcsd:nano@int8"]
workloads = ["tg8", "pp8"]
threads = [1, "all"]
[[measure]]
candidates = ["mcsd:nano@int8"]
workloads = ["tg8 @ d16"]
"""


class Silent:
    def stage(self, point, text, done, total):
        pass

    def rows(self, point, rows):
        pass


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(TEXT)
    return sweep.load(path)


@pytest.fixture
def quick_machine(monkeypatch):
    """No training, no timing: every measurement is a made-up row with the right names."""
    from harness.engines.numba import random

    calls = []

    def timed(checkpoint, workloads, threads, effort, *, environment, quality, **_):
        calls.append((checkpoint.recipe.name, threads, tuple(workloads)))
        return [
            replace(
                measure.failed_row(checkpoint.recipe, w, threads, "", environment),
                seconds=Measured(samples=(0.1, 0.1), method="pyperf"),
                checkpoint_hash=sweep.checkpoints.checkpoint_hash(checkpoint),
            )
            for w in workloads
        ]

    monkeypatch.setattr(sweep, "make", lambda recipe, progress: random.checkpoint(recipe))
    monkeypatch.setattr(sweep, "measure", timed)
    monkeypatch.setattr(sweep.limits, "cached_limits", dict)
    return calls


def test_blocks_expand_to_points_and_join_what_names_a_candidate_twice(plan):
    points = sweep.expand(plan, 2)
    assert [(p.candidate, p.threads, p.workloads) for p in points] == [
        ("attention:nano", 1, ("tg8", "pp8")),
        ("attention:nano", 2, ("tg8", "pp8")),
        ("mcsd:nano@int8", 1, ("tg8", "pp8", "tg8 @ d16")),
        ("mcsd:nano@int8", 2, ("tg8", "pp8")),
    ]
    assert sweep.estimate(points, Effort()) > sweep.estimate(points[:1], Effort()) > 0


def test_a_second_run_measures_nothing_again(plan, tmp_path, quick_machine):
    first = sweep.run(plan, tmp_path / "rows", Silent())
    done = len(quick_machine)
    again = sweep.run(plan, tmp_path / "rows", Silent())
    assert len(quick_machine) == done
    assert sorted(map(str, again)) == sorted(map(str, first))


def test_a_row_that_was_lost_is_the_only_one_measured_again(plan, tmp_path, quick_machine):
    sweep.run(plan, tmp_path / "rows", Silent())
    quick_machine.clear()
    (lost,) = (tmp_path / "rows").glob("*d16*")
    lost.unlink()
    sweep.run(plan, tmp_path / "rows", Silent())
    assert quick_machine == [("mcsd:nano@int8", 1, ("tg8 @ d16",))]


def test_a_candidate_that_fails_becomes_rows_and_the_sweep_goes_on(
    plan, tmp_path, quick_machine, monkeypatch
):
    real = sweep.measure

    def sometimes(checkpoint, *given, **named):
        if checkpoint.recipe.name == "attention:nano":
            raise WorkerFailed("attention:nano: the timing worker ran out of memory or was killed")
        return real(checkpoint, *given, **named)

    monkeypatch.setattr(sweep, "measure", sometimes)
    found = sweep.run(plan, tmp_path / "rows", Silent())
    failed = [row for row in found if isinstance(row.seconds, Failed)]
    assert {row.candidate for row in failed} == {"attention:nano"}
    assert all("out of memory" in row.seconds.reason for row in failed)
    assert any(isinstance(row.seconds, Measured) for row in found)
    stored, problems = store.read(tmp_path / "rows")
    assert len(stored) == len(found)
    assert not problems


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (("[[measure]]", "[[measure"), "is no valid TOML"),
        (('title = "two"', ""), "title"),
        (("attention:nano", "attention:huge"), "unknown size 'huge'"),
        (("tg8 @ d16", "tg8 at 16"), "workload 'tg8 at 16' is not known"),
        (('threads = [1, "all"]', "threads = [0]"), "threads must be numbers"),
        (("workloads", "workload"), "workload"),
    ],
)
def test_a_broken_sweep_file_is_one_line_that_says_what_is_wrong(tmp_path, change, hint):
    path = tmp_path / "broken.toml"
    path.write_text(TEXT.replace(*change))
    with pytest.raises((BadInput, UnknownName), match=hint) as error:
        sweep.load(path)
    assert "\n" not in str(error.value)


def test_a_sweep_file_that_is_not_there_names_itself(tmp_path):
    with pytest.raises(BadInput, match=r"none\.toml does not exist"):
        sweep.load(tmp_path / "none.toml")


def test_the_default_sweep_is_valid_and_counts_its_rows():
    plan = sweep.load(sweep.DEFAULT)
    points = sweep.expand(plan, 2)
    assert len({p.candidate for p in points}) >= 20
    assert len(plan.project.devices) >= 14


def test_rows_brought_from_a_board_take_the_place_of_its_projections():
    from harness import forecast
    from targets import profile

    here = fake.row("mcsd", "nano", "int8")
    brought = replace(here, device="rpi5")
    devices = [profile.load("rpi5"), profile.load("rpi4")]

    def projected(known):
        return {r.device for r in forecast.rows(known, devices) if r.workload == "tg64"}

    assert projected([here]) == {"rpi5", "rpi4"}
    assert projected([here, brought]) == {"rpi4"}


def test_the_first_token_is_forecast_though_only_decoding_was_measured():
    from harness import forecast
    from targets import profile

    found = forecast.rows([fake.row("mcsd", "nano", "int8")], [profile.load("rpi5")])
    assert {row.workload for row in found} == {"tg64", "ttft"}


def test_a_failed_run_hides_no_row_with_a_time_of_the_same_point():
    good = fake.row("mcsd", "nano", "int8")
    environment = replace(good.environment, started="2099-01-01T00:00:00+00:00")
    bad = replace(good, seconds=Failed(reason="hung"), environment=environment)
    assert store.latest([good, bad]) == [good]


def test_a_forecast_keeps_the_quality_and_the_bytes_of_the_measured_weights():
    from harness import forecast
    from targets import profile

    here = fake.row("mcsd", "nano", "int8")
    there = forecast.forecast(here, profile.load("rpi5"))
    assert there.quality == here.quality
    assert there.resident == here.resident
    assert there.environment is None
    assert there.seconds.low < there.seconds.value < there.seconds.high


def test_pruning_shrinks_the_forecast_workload():
    recipe = candidates.parse("attention:nano@prune50+int8")
    assert candidates.final_shape(recipe).hidden == 160


def test_an_engine_that_disagrees_with_pytorch_is_not_timed(
    plan, tmp_path, quick_machine, monkeypatch
):
    def trained(recipe, progress):
        from harness.engines.numba import random

        checkpoint = random.checkpoint(recipe)
        return replace(checkpoint, provenance={"corpus_hash": "0" * 16})

    def disagree(checkpoint):
        raise Mismatch(f"{checkpoint.recipe.name}: the engine's logits differ from PyTorch's")

    monkeypatch.setattr(sweep, "make", trained)
    monkeypatch.setattr(sweep.quality, "score", lambda checkpoint, progress: None)
    monkeypatch.setattr(sweep, "agree", disagree)
    found = sweep.run(plan, tmp_path / "rows", Silent(), only=["attention:nano"])
    assert quick_machine == []
    assert all("differ from PyTorch's" in row.seconds.reason for row in found)
