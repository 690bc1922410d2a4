"""The table of truth: it may not get worse unseen, and says what is known of its worst rows."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from harness import calibrate, forecast, likeness, observations, roofline, scores, store, truth
from harness.errors import BadInput
from targets.profile import load_all

ROOT = Path(__file__).parents[1]
STORED = ROOT / "results" / "projection" / "truth.csv"


@pytest.fixture(scope="module")
def left():
    return calibrate.leave_out(observations.published({d.name: d for d in load_all()}))


def table(left) -> list[dict[str, str]]:
    found = truth.Truth(left={"SoC": left}, own={}, fit=roofline.load())
    return list(csv.DictReader(io.StringIO(truth.as_csv(found))))


def test_no_error_has_grown_by_more_than_a_tenth(left):
    assert truth.check(table(left), STORED) == []


def test_the_stored_table_keeps_the_bars(left):
    """What is asked of projections from facts alone, on rows whose SoC the fit has not seen."""
    bars = {
        ("decode", "all"): (0.17, 0.78), ("decode", "clean"): (0.14, 0.78),
        ("prefill", "all"): (0.28, 0.55), ("prefill", "clean"): (0.25, 0.55),
    }  # fmt: skip
    for score in scores.scores(left):
        error, within = bars[score.phase, score.which]
        assert score.error <= error
        assert score.within[2] >= within
        assert score.width <= (1.6 if score.phase == "decode" else 2.2)
        assert score.chance > 0.05
    assert scores.decisions(left).ordered >= 0.965


def test_our_own_rows_are_projected_from_other_sizes_and_formats_of_them():
    """The bars for the engine on the host that made the rows in results/."""
    devices = {d.name: d for d in load_all(ROOT / "results" / "vm" / "device")}
    rows = store.read(ROOT / "results" / "vm" / "rows")[0]
    own = observations.own(rows, devices, forecast.workload_of)
    known = observations.published(devices)
    assert len(own) > 30
    for unseen, group in truth.OURS.items():
        left = calibrate.leave_out(own, group, known)
        found = truth.own_errors(left)
        told = truth.rows(truth.Truth(left={}, own={unseen: left}, fit=roofline.load()))
        assert [(row["phase"], row["rows"], float(row["median_error"])) for row in told] == [
            (phase, str(n), pytest.approx(error, abs=1e-4)) for phase, (error, n) in found.items()
        ]
        assert truth.check(told, STORED) == []
        assert found["decode"][0] <= 0.10
        assert found["prefill"][0] <= 0.15


def test_a_fit_never_sees_what_it_is_scored_on(left):
    """Rows of a SoC made a hundred times slower change no projection of that SoC."""
    rows = [x.observation for x in left if x.observation.group in ("BCM2712", "X1E-80-100")]
    spoilt = [replace(o, seconds=100 * o.seconds) if o.group == "BCM2712" else o for o in rows]
    honest, other = (calibrate.leave_out(each) for each in (rows, spoilt))
    for a, b in zip(honest, other, strict=True):
        assert (a.seconds == b.seconds) == (a.observation.group == "BCM2712")


def test_a_table_that_got_worse_by_a_tenth_is_told(left, tmp_path):
    now = table(left)
    better = [{**row, "median_error": str(float(row["median_error"]) / 1.2)} for row in now]
    path = tmp_path / "truth.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, truth.COLUMNS)
        writer.writeheader()
        writer.writerows(better)
    grown = truth.check(now, path)
    assert len(grown) == len(now)
    assert "SoC decode all: median error" in grown[0]
    path.write_text("nonsense\n")
    with pytest.raises(BadInput, match=r"truth\.csv"):
        truth.check(now, path)


def test_the_worst_rows_have_a_reason(left):
    for x in left:
        why = truth.likely(x, left)
        assert why
        if x.observation.distrusted:
            assert why == x.observation.distrusted
    lines = truth.worst(left, 20)
    assert len(lines) == 22


def test_decisions_count_pairs_of_the_same_run_only(left):
    one = next(x for x in left if x.observation.phase == "decode")
    fast = replace(one, observation=replace(one.observation, group="a", seconds=0.05), seconds=0.06)
    slow = replace(one, observation=replace(one.observation, group="b", seconds=0.2), seconds=0.15)
    wrong = replace(slow, seconds=0.01)
    other = replace(slow, observation=replace(slow.observation, model="other"))
    assert scores.decisions([fast, slow]).ordered == 1
    assert scores.decisions([fast, wrong]).ordered == 0
    assert scores.decisions([fast, other]).pairs == 0
    assert scores.decisions([fast, slow]).readable == 1
    assert scores.decisions([fast, wrong]).readable == 0.5


def test_repeats_are_pairs_of_one_run_on_one_soc(left):
    one = next(x for x in left if x.observation.phase == "decode" and not x.observation.distrusted)

    def again(**changes):
        return replace(one, observation=replace(one.observation, **changes))

    rows = [one, again(seconds=1.25 * one.observation.seconds)]
    assert scores.repeats(rows, "decode") == (pytest.approx(0.25), 1)
    for other in ({"model": "other"}, {"form": "q9"}, {"group": "a"}, {"distrusted": "throttled"}):
        more = again(seconds=one.observation.seconds / 9, **other)
        assert scores.repeats([*rows, more], "decode")[1] == 1, other
    assert scores.repeats(rows, "prefill")[1] == 0
    error, pairs = scores.repeats(left, "decode")
    assert pairs >= 20
    assert 0.05 < error < 0.15


@pytest.mark.parametrize("phase", scores.PHASES)
def test_an_interval_that_one_measurement_narrows_still_holds(left, phase):
    fit = roofline.load()
    rows = [x for x in left if x.observation.phase == phase]
    held, widths = defaultdict(list), []
    for x, half in zip(rows, scores.halves(left, phase), strict=True):
        for y in rows:
            if x is y or not scores._same_place(x.observation, y.observation):
                continue
            one = likeness.miss(y.observation.setting, y.residual)
            shift, kept = likeness.adjust((one,), x.observation.setting, fit)
            held[x.observation.group].append(abs(x.residual - shift) <= half * kept)
            widths.append(kept)
    shares = [sum(inside) / len(inside) for inside in held.values()]
    assert len(shares) >= 8
    assert sum(shares) / len(shares) > 0.85
    assert max(widths) < 0.9
