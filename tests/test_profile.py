"""The stage-timed build, its report and the flame graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from harness import candidates, checkpoint, errors, flame, profile, stages, workload
from harness.engines.numba import random
from kernels import laps

CANDIDATE = "mcsd:nano"
NAMES = ("attention:nano", "mcsd+selective:nano@int4", "attention:110m@int8", "mcsd:500m@sparse50")
LIMITS = {"read_bytes_per_s.1": 10e9, "cache_read_bytes_per_s.1": 10e9}
IDENTITY = """
import json
from numba import njit
from harness.engines.numba import plan
from kernels import laps, team

@njit
def between(block):
    laps.start(0, block)
    laps.lap(0, block, laps.FFN)

between(team.shared_block())
(code,) = between.inspect_llvm().values()
print(json.dumps([plan.fingerprint(), "clock_gettime" in code]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache of its own: the candidate there has random weights, which no other test may find."""
    folder = tmp_path_factory.mktemp("profile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWISE_CACHE", str(folder))
        recipe = candidates.parse(CANDIDATE)
        checkpoint.save(random.checkpoint(recipe), checkpoint.path_of(recipe))
        yield folder


@pytest.fixture(scope="module")
def report(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "SECONDS", 0.2)
        patch.setattr(profile, "FLAME_SECONDS", 1.0)
        yield profile.profile(CANDIDATE, home / "figures", tokens=64, limits=LIMITS)


def built(name, depth=0):
    recipe = candidates.parse(name)
    run = workload.Run("tg64", "decode", 64, depth)
    return workload.build(recipe, candidates.final_shape(recipe), run)


@pytest.mark.parametrize("name", NAMES)
def test_every_call_belongs_to_exactly_one_stage(name):
    spec = built(name, depth=512)
    assert {profile.stage_of(call) for call in spec.calls} == set(laps.STAGES) - {"embedding"}
    times = stages.Times(np.full(8, 7e-6), np.full((8, len(laps.STAGES)), 1e-6))
    found, _, _ = profile.split(times, spec, None)
    assert sum(stage.bytes_read or 0 for stage in found) == spec.weight_bytes + spec.state_bytes
    assert sum(stage.operations or 0 for stage in found) == spec.operations
    assert sum(sum(stage.kernels.values()) for stage in found) == sum(c.count for c in spec.calls)


def test_matrices_are_projections_and_the_recurrence_is_the_mix():
    spec = built(CANDIDATE)
    times = stages.Times(np.full(4, 1e-5), np.full((4, len(laps.STAGES)), 1e-6))
    found = {stage.name: stage for stage in profile.split(times, spec, 1e9)[0]}
    layers = candidates.parse(CANDIDATE).shape.layers
    assert found["project"].kernels == {"matvec_f32": 5 * layers}
    assert found["mix"].kernels == {"mcsd": layers}
    assert found["norm"].kernels == {"rmsnorm": 2 * layers + 1}
    assert found["embedding"].bytes_read is None
    assert found["head"].bytes_read == 4 * 256 * 128
    assert found["head"].of_limit == pytest.approx(4 * 256 * 128 / 1e-6 / 1e9)


def test_outliers_do_not_move_the_stages_and_the_parts_still_add_up():
    rng = np.random.default_rng(0)
    parts = rng.uniform(1e-6, 2e-6, (400, len(laps.STAGES)))
    steps = parts.sum(1) + 3e-6
    parts[::10, 2] += 1e-2
    steps[::10] += 1e-2
    found, entry, whole = profile.split(stages.Times(steps, parts), built(CANDIDATE), None)
    assert sum(stage.seconds for stage in found) + entry == pytest.approx(whole)
    assert entry == pytest.approx(3e-6)
    assert all(1e-6 < stage.seconds < 2e-6 for stage in found)


def test_measured_stages_sum_to_the_step_they_were_timed_in(report):
    inside = sum(stage.seconds for stage in report.stages)
    assert inside + report.entry_seconds == pytest.approx(report.timed_seconds)
    assert all(stage.seconds > 0 for stage in report.stages)
    assert 0 < report.entry_seconds < inside
    assert sum(stage.share for stage in report.stages) < 1


def test_timing_the_stages_leaves_the_step_about_as_long_as_it_was(report):
    assert 1 / 3 < report.timed_seconds / report.plain_seconds < 3


def test_the_flame_graph_is_an_svg_of_the_decoding_or_a_line_says_why_not(report):
    if report.flame_note:
        assert report.flame_graph == ""
        assert report.flame_note.startswith("no flame graph: ")
        assert "\n" not in report.flame_note
    else:
        root = ElementTree.parse(report.flame_graph).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "_rounds" in Path(report.flame_graph).read_text("utf-8")


def test_the_table_names_every_stage_and_the_cost_of_timing(report):
    shown = profile.text(report)
    assert all(f"\n{name} " in shown for name in (*laps.STAGES, "entry", "whole step"))
    assert "ordinary build" in shown
    assert "of CPU execution" in shown
    assert max(map(len, shown.splitlines())) <= 110
    assert "unknown" in profile.text(replace(report, limit_bytes_per_s=None))
    assert json.loads(json.dumps(asdict(report)))["candidate"] == CANDIDATE


def test_only_the_stage_timed_plan_reads_a_clock(report, home):
    clocks = [
        any(b"clock_gettime" in path.read_bytes() for path in plan.rglob("*.nbc"))
        for plan in sorted((home / "plans").iterdir())
    ]
    assert sorted(clocks) == [False, True]


def test_switching_laps_changes_the_fingerprint_and_nothing_else_reads_a_clock():
    seen = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", IDENTITY],
                env={**os.environ, laps.VARIABLE: value},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for value in ("0", "1")
    ]
    (off, clock_off), (on, clock_on) = seen
    assert off != on
    assert (clock_off, clock_on) == (False, True)


def test_the_decoding_process_stays_free_of_torch():
    code = "import sys, harness.stages; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_missing_or_forbidden_py_spy_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(flame, "find", lambda: None)
    assert "pip install py-spy" in flame.record([sys.executable], tmp_path / "x.svg", {})
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\necho 'Error: Permission Denied: try sudo' >&2\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setattr(flame, "find", lambda: str(spy))
    note = flame.record([sys.executable], tmp_path / "x.svg", dict(os.environ))
    assert note.startswith("no flame graph: py-spy may not trace")
    assert not (tmp_path / "x.svg").exists()


def test_nonsense_is_refused_in_one_line(home, tmp_path):
    with pytest.raises(errors.BadInput, match="at least 1 token"):
        profile.profile(CANDIDATE, tmp_path, tokens=0)
    with pytest.raises(errors.BadInput, match="is not of the form"):
        profile.profile("nano", tmp_path)


def test_a_decoding_process_that_dies_is_one_line(home):
    job = stages.Job(candidate="mcsd:giga", text=(1,), tokens=1, depth=0, threads=1, cores=())
    with pytest.raises(errors.WorkerFailed, match=r"mcsd:giga: .*UnknownName") as caught:
        stages.run(job, timed=False)
    assert "\n" not in str(caught.value)
