"""A measured row is read by instruments in fresh processes; a worker that fails says why."""

from dataclasses import replace

import numpy as np
import pytest

from harness import candidates, host, measure, spawn
from harness.engines.numba import random
from harness.errors import DoesNotFit, Mismatch, WorkerFailed
from harness.records import Failed, Measured
from harness.spawn import Effort

TINY = {"width": 32, "layers": 2, "mixers": ("mcsd",) * 2, "hidden": 64, "channels": 2}
SHORT = Effort(processes=1, values=2, warmups=1, shortest=0.002)


@pytest.fixture(scope="module")
def checkpoint():
    recipe = candidates.parse("mcsd:nano@int8", tokens=0)
    return random.checkpoint(replace(recipe, shape=replace(recipe.shape, **TINY), tokens=0))


@pytest.fixture(scope="module")
def rows(checkpoint, tmp_path_factory):
    keep = tmp_path_factory.mktemp("pyperf")
    found = measure.measure(
        checkpoint,
        ["tg8", "pp16", "tg4 @ d32"],
        1,
        SHORT,
        environment=host.describe(),
        quality=None,
        keep=lambda name, content: (keep / name).write_bytes(content),
    )
    return found, keep


def test_each_workload_gives_a_row_with_raw_samples(rows):
    found, _ = rows
    assert [row.workload for row in found] == ["tg8", "pp16", "tg4 @ d32"]
    for row in found:
        assert isinstance(row.seconds, Measured)
        assert len(row.seconds.samples) == SHORT.values
        assert row.compile_seconds is not None
        assert row.environment is not None


def test_resident_bytes_lie_between_the_weights_and_the_peak(rows):
    found, _ = rows
    for row in found:
        assert row.weight_bytes <= row.resident.samples[0] <= row.peak.samples[0]
        assert row.baseline_bytes <= row.peak.samples[0]


def test_the_timing_file_opens_with_pyperf(rows):
    import pyperf

    _, keep = rows
    (path,) = keep.glob("*.json.gz")
    suite = pyperf.BenchmarkSuite.load(str(path))
    assert {bench.get_name() for bench in suite.get_benchmarks()} == {"tg8", "pp16", "tg4 @ d32"}


def test_without_a_meter_and_a_profile_energy_says_so(rows):
    found, _ = rows
    if not isinstance(found[0].joules, Measured):
        assert isinstance(found[0].joules, Failed)
        assert "no energy meter" in found[0].joules.reason


def test_few_processes_make_a_quick_row(rows):
    assert all(row.quick for row in rows[0])


def test_a_worker_that_hangs_is_stopped_and_said_so(checkpoint):
    with pytest.raises(WorkerFailed, match=r"hung and was stopped after 0 s"):
        measure.measure(
            checkpoint,
            ["tg8"],
            1,
            replace(SHORT, timeout=0.3),
            environment=host.describe(),
            quality=None,
        )


def test_a_worker_that_dies_gives_its_reason_in_one_line(checkpoint, monkeypatch):
    monkeypatch.setattr(measure, "SAVED_BYTES", 0)  # so that the worker makes the weights itself
    broken = replace(checkpoint, recipe=replace(checkpoint.recipe, steps=("int8",), seed=-1))
    with pytest.raises(WorkerFailed) as failure:
        measure.measure(broken, ["tg8"], 1, SHORT, environment=host.describe(), quality=None)
    assert "the timing worker failed" in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("code", "errors"),
    [(-9, ""), (1, "MemoryError: Unable to allocate 8 GiB"), (1, "failed with exit code -9")],
)
def test_a_worker_without_memory_is_told_from_a_broken_one(code, errors):
    assert spawn.reason(code, errors) == "the timing worker ran out of memory or was killed"


def test_what_cannot_fit_is_refused_before_it_is_tried(checkpoint):
    small = replace(host.describe(), memory_bytes=1000)
    with pytest.raises(DoesNotFit, match="this machine has"):
        measure.measure(checkpoint, ["tg8"], 1, SHORT, environment=small, quality=None)


def test_prefill_that_disagrees_with_decode_is_not_timed(checkpoint, monkeypatch):
    from harness import worker
    from harness.engines.numba import session as engine

    with engine.open_session(checkpoint, room=64) as session:
        assert worker.check(session, np.arange(32)) <= worker.AGREEMENT
        real = engine.step
        monkeypatch.setattr(engine, "step", lambda s, token: real(s, token) + np.float32(1.0))
        with pytest.raises(Mismatch, match="not timed"):
            worker.check(session, np.arange(32))


def test_the_worker_never_carries_torch():
    import subprocess
    import sys

    code = "import harness.worker, sys; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
