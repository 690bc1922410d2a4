"""The gate: verdicts on made-up times, the base commit, and workers on real trees."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import gate
from harness.errors import BadInput, UnknownName, WorkerFailed
from harness.gate import base, duel
from harness.gate.verdict import MOST_BATCHES, Limits, judge, settled, sign_test

LIMITS = Limits()
ROUNDS = 12


def times(factor, seed=0, *, call=40e-6, noise=0.03, generations=4, luck=0.0):
    """Pairs whose machine drifts by tens of per cent, which a pair shares, and whose own noise
    it does not; `luck` is the deviation of what a process keeps for its life."""
    rng = random.Random(seed)
    made = []
    for _ in range(generations):
        placed = factor * (1 + luck * rng.gauss(0, 1))
        pairs = []
        for turn in range(ROUNDS):
            machine = call * (1.2 + 0.2 * ((turn // 3) % 3))
            own = (abs(1 + noise * rng.gauss(0, 1)) + 0.01 for _ in range(2))
            pairs.append((machine * next(own), machine * placed * next(own)))
        made.append(pairs)
    return made


def outcome(*args, **kwargs):
    return judge(times(*args, **kwargs), LIMITS).outcome


@given(st.integers(0, 10**9), st.floats(0.001, 0.08), st.floats(0.0, 0.03))
@settings(deadline=None)
def test_an_unchanged_tree_passes(seed, noise, luck):
    assert outcome(1.0, seed, noise=noise, luck=luck) == "pass"


@given(st.integers(0, 10**9), st.floats(0.001, 0.08), st.floats(0.0, 0.03))
@settings(deadline=None)
def test_a_slowdown_of_a_half_fails(seed, noise, luck):
    assert outcome(1.5, seed, noise=noise, luck=luck) == "fail"


def test_a_speed_up_passes():
    assert outcome(0.6) == "pass"


def test_a_significant_difference_below_the_threshold_passes():
    verdict = judge(times(1.05, noise=0.005), LIMITS)
    assert verdict.p < LIMITS.chance
    assert verdict.outcome == "pass"


def test_a_large_ratio_of_a_tiny_time_passes():
    verdict = judge(times(1.5, call=1e-6), LIMITS)
    assert verdict.ratio > 1.4
    assert verdict.outcome == "pass"


def test_a_large_difference_that_noise_could_make_is_inconclusive():
    few = [[(1e-4, 1.5e-4), (1e-4, 1.3e-4), (1e-4, 0.8e-4), (1e-4, 1.6e-4)]]
    verdict = judge(few, LIMITS)
    assert verdict.ratio > LIMITS.ratio
    assert (verdict.outcome, verdict.why) == ("inconclusive", "not significant")


def test_noise_that_could_hide_a_slowdown_is_inconclusive():
    wild = [[(1e-4, 1e-4 * ratio) for ratio in (0.4, 0.5, 0.7, 1.0, 1.0, 1.5, 1.8, 2.5)]]
    assert (judge(wild, LIMITS).outcome, judge(wild, LIMITS).why) == ("inconclusive", "too noisy")


def test_a_difference_of_half_of_the_processes_is_inconclusive():
    slow, same = times(1.5, generations=2), times(1.0, generations=2)
    verdict = judge([*slow, *slow[:1], *same[:1], *same], LIMITS)
    assert (verdict.outcome, verdict.why) == ("inconclusive", "processes disagree")


@given(st.integers(0, 10**9), st.floats(0.5, 2.0), st.floats(0.0, 0.3))
@settings(deadline=None)
def test_a_verdict_does_not_depend_on_the_unit_of_time(seed, factor, noise):
    made = times(factor, seed, noise=noise)
    scaled = [[(8 * a, 8 * b) for a, b in pairs] for pairs in made]
    loose = replace(LIMITS, seconds=8 * LIMITS.seconds)
    assert judge(scaled, loose).outcome == judge(made, LIMITS).outcome


@pytest.mark.parametrize("slower", range(13))
def test_the_sign_test_is_scipys(slower):
    from scipy.stats import binomtest

    pairs = [(1.0, 2.0)] * slower + [(2.0, 1.0)] * (12 - slower) + [(1.0, 1.0)] * 3
    assert sign_test(pairs) == pytest.approx(binomtest(slower, 12).pvalue)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        (["pass"], "pass"),
        (["fail"], None),
        (["fail", "fail"], "fail"),
        (["inconclusive"], None),
        (["inconclusive", "pass"], "pass"),
        (["inconclusive", "fail"], None),
        (["inconclusive", "fail", "fail"], "fail"),
        (["fail", "pass"], None),
        (["fail", "pass", "pass"], "pass"),
        (["fail", "pass", "fail"], None),
        (["fail", "pass", "fail", "pass"], "inconclusive"),
        (["inconclusive"] * MOST_BATCHES, "inconclusive"),
    ],
)
def test_a_failure_is_confirmed_by_a_second_batch_and_all_ends(batches, expected):
    assert settled(batches) == expected


def test_limits_that_forbid_nothing_are_refused():
    with pytest.raises(ValueError, match="1 < ratio"):
        Limits(ratio=0.9)


# ---- the base commit -----------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    """Two commits; the second brings a kernel."""
    root = tmp_path / "repository"
    (root / "kernels").mkdir(parents=True)
    for words in (["init", "-q", "-b", "main"], ["config", "user.name", "x"]):
        git(root, *words)
    git(root, "config", "user.email", "x@example.org")
    for name in ("__init__", "later"):
        (root / "kernels" / f"{name}.py").write_text("")
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", name)
    return root


def git(root, *words):
    done = subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_base_named(monkeypatch):
    monkeypatch.delenv(base.BASE, raising=False)


def test_a_clean_tree_is_compared_with_the_commit_before(repository):
    assert base.resolve(None, repository) == git(repository, "rev-parse", "HEAD~1")


def test_a_changed_tree_is_compared_with_its_last_commit(repository):
    (repository / "kernels" / "later.py").write_text("changed")
    assert base.resolve(None, repository) == git(repository, "rev-parse", "HEAD")


def test_a_branch_is_compared_with_where_it_left_main(repository):
    fork = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "-b", "topic")
    for name in ("one", "two"):
        git(repository, "commit", "-q", "--allow-empty", "-m", name)
    assert base.resolve(None, repository) == fork


def test_the_environment_names_the_base(repository, monkeypatch):
    monkeypatch.setenv(base.BASE, "main~1")
    assert base.resolve(None, repository) == git(repository, "rev-parse", "HEAD~1")


@pytest.mark.parametrize("name", ["nowhere", "--all", "HEAD:kernels"])
def test_an_unknown_base_is_one_line(repository, name):
    with pytest.raises(BadInput, match="no commit"):
        base.resolve(name, repository)


def test_a_folder_without_history_is_one_line(tmp_path):
    with pytest.raises(BadInput, match="needs a git checkout"):
        base.resolve(None, tmp_path)


def test_a_commit_is_extracted_as_it_was(repository, tmp_path):
    (repository / "kernels" / "later.py").write_text("changed")
    base.extract(git(repository, "rev-parse", "HEAD~1"), tmp_path / "old", repository)
    assert [p.name for p in (tmp_path / "old" / "kernels").iterdir()] == ["__init__.py"]
    assert git(repository, "worktree", "list").count("\n") == 0


# ---- workers on real trees -----------------------------------------------------------------


def tree(folder, init):
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels" / "__init__.py").write_text(init)
    return folder


def test_a_tree_beside_itself_passes_and_an_older_one_without_the_kernel_is_new(
    tmp_path, cache_folder
):
    effort = gate.Effort(generations=1, rounds=8)
    loose = replace(LIMITS, ratio=3.0, hidden=5.0)
    # one kernel whose function stands in its file, and one whose function another file makes
    both = gate.compare(base.ROOT, base.ROOT, ["rmsnorm", "sparse_matvec"], loose, effort)
    for same in both:
        assert (same.outcome, len(same.base), len(same.now)) == ("pass", 8, 8)
        assert all(0 < t < 1 for t in (*same.base, *same.now))
    old = tree(tmp_path / "old", "")
    (new,) = gate.compare(old, base.ROOT, ["rmsnorm"], loose, effort)
    assert (new.outcome, new.base, len(new.now)) == ("new", (), 8)
    report = gate.Report(commit="0" * 40, compared=(*both, new), limits=loose, seconds=1.0)
    assert gate.failures(report) == ()
    assert "1 new, 2 pass; 1 s" in gate.table(report)


def test_a_dead_worker_is_one_clear_line(tmp_path):
    dying = tree(tmp_path / "dying", "import os, sys; print('ouch', file=sys.stderr); os._exit(3)")
    with pytest.raises(WorkerFailed, match=r"worker died at 'load rmsnorm' \(3\)"):
        duel.fight(dying, dying, ["rmsnorm"], 1, cache=tmp_path)


def test_a_hanging_worker_is_one_clear_line(tmp_path):
    hanging = tree(tmp_path / "hanging", "import time; time.sleep(60)")
    with pytest.raises(WorkerFailed, match="worker hung at 'load rmsnorm'"):
        duel.fight(hanging, hanging, ["rmsnorm"], 1, cache=tmp_path, patience=1.0)


def test_what_the_working_tree_cannot_run_is_an_error(tmp_path):
    broken = tree(tmp_path / "broken", "raise RuntimeError('half an edit')")
    with pytest.raises(WorkerFailed, match=r"working tree's worker failed .* half an edit"):
        duel.fight(base.ROOT, broken, ["rmsnorm"], 1, cache=tmp_path)


def test_an_unknown_item_is_one_line():
    with pytest.raises(UnknownName, match="nothing to gate is called 'nothing'"):
        gate.gate(chosen=["nothing"])
