"""The co-design map: against projections one by one, and against the scores it is made of."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from harness import (
    advice,
    best_use,
    codesign,
    contenders,
    likeness,
    queries,
    reported,
    roofline,
    scaling,
    whatif,
)
from harness.cli import app, projecting  # noqa: F401 - the verb
from harness.codesign import Budget
from harness.contenders import NO_EVIDENCE, NOTHING, Contender
from harness.errors import BadInput, HarnessError
from harness.plot import codesign_figure
from harness.settings import points
from targets.profile import ProfileError, load

GIB = 2**30
QWEN, BITNET, BY_KIND = contenders.suites()


@pytest.fixture(scope="module")
def fit():
    return roofline.load()


def contender(name, score, better=1.0):
    return Contender(
        suite="test", title=name, model=name, form="f16", engine="llama.cpp", metric="loss",
        better=better, score=score, source="", caveat="",
    )  # fmt: skip


def seconds(one, device, fit, threads=None):
    """Of a token behind 2048, as a table of questions says it; the best of all counts."""
    counts = [threads] if threads else {1, device.cores, int(device.clusters[0].count.value)}
    rows = [{**one.asked(2048), "device_id": device.name, "threads": str(n)} for n in counts]
    found = queries.answers(rows, {device.name: device}, fit)
    return 1 / max(float(answer["tokens_per_s"]) for answer in found)


# ---- scores --------------------------------------------------------------------------------


def test_every_score_has_a_source_that_is_quoted_and_a_model_of_known_shape():
    with contenders.QUALITY.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 50
    for row in rows:
        assert row["source"].startswith("https://")
        assert row["value"] in row["quote"], row
        assert len(row["error_source"]) > 10
    for field in contenders.suites().values():
        assert len({(one.suite, one.metric, one.better) for one in field}) == 1
        for one in field:
            assert not reported.read(one.asked(0), load("rpi5")).notes, one.name


def test_what_nobody_scored_has_no_score_and_only_models_in_16_bits_can_be_squeezed():
    field = contenders.suites()[BITNET]
    assert {one.form for one in field if one.score and one.title.startswith("BitNet")} == {"i2_s"}
    unscored = [one for one in field if one.score is None]
    assert unscored
    assert all(one.title.startswith("Llama shape") and one.form != "f16" for one in unscored)
    known = {(one.title, one.form) for one in field if one.score}
    assert not known & {(one.title, one.form) for one in unscored}


def test_of_what_cannot_be_told_apart_the_least_is_taken():
    field = [
        contender("best", (1.0, 0.9, 1.1)),
        contender("as good", (1.15, 1.05, 1.25)),
        contender("worse", (1.3, 1.2, 1.4)),  # overlaps with the second, not with the first
        contender("unknown", None),
    ]
    sizes = np.array([8.0, 4.0, 2.0, 1.0])
    holds = np.array(
        [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=bool
    )
    chosen, tied = contenders.choose(holds, field, sizes)
    assert chosen.tolist() == [1, 2, 0, NO_EVIDENCE, NOTHING]
    assert tied.tolist()[0] == [True, True, False, False]
    assert contenders.beyond(2, field).tolist() == [0]
    assert contenders.beyond(NOTHING, field).tolist() == [0, 1, 2]
    assert contenders.alike(1, field).tolist() == [0, 1, 2]


def test_more_is_better_where_the_suite_says_so():
    field = [contender("a", (60.0, 59, 61), -1.0), contender("b", (70.0, 69, 71), -1.0)]
    chosen, _ = contenders.choose(np.ones((1, 2), bool), field, np.array([1.0, 2.0]))
    assert chosen.tolist() == [1]
    assert contenders.beyond(0, field).tolist() == [1]


def test_a_broken_file_of_scores_is_told_in_a_line(tmp_path):
    path = tmp_path / "quality.csv"
    path.write_text("suite,model\nx,y\n")
    with pytest.raises(BadInput, match="holds no scores"):
        contenders.suites(path)


# ---- machines ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rpi5", "oneplus13_sd8elite", "ryzen_7950x"])
def test_a_scaled_machine_is_the_device_with_its_facts_changed(fit, name):
    device = load(name)
    changed = whatif.changed(device, ["memory_bandwidth=2x", "clock=1.5x"])
    settings = [
        replace(reported.read(one.asked(2048), place).setting, threads=4)
        for place in (device, changed)
        for one in contenders.suites()[QWEN][:5]
    ]
    factors = np.array([1.0, 2.0]), np.array([1.0, 1.5])
    found = scaling.over(settings[:5], *factors, fit).total
    expected = roofline.seconds(points(settings, fit), fit.names, fit.values).total
    assert found.ravel() == pytest.approx(expected)


def test_a_device_lies_where_its_bus_and_its_clocks_put_it(fit):
    device = load("rpi5")
    before = scaling.place(device, fit)
    after = scaling.place(whatif.changed(device, ["clock=2x"]), fit)
    assert after.compute == pytest.approx(2 * before.compute)
    assert after.bandwidth == pytest.approx(before.bandwidth)
    assert before.bandwidth < device.bandwidth.value


# ---- maps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [QWEN, BITNET, BY_KIND])
def test_cells_of_a_map_are_what_changed_devices_are_projected_to_do(fit, suite):
    device, budget = load("rpi5"), Budget()
    found = codesign.maps(suite, [60 * GIB], device, budget, fit)[0]
    bus, clock = scaling.scales(device, found.bandwidth, found.compute, fit)
    for row, column in ((5, 70), (40, 20), (45, 45), (75, 30), (75, 79)):
        there = replace(
            whatif.changed(device, ["memory=60GiB"]),
            **{
                key: getattr(whatif._with(device, fact, lambda x, s=s: x * s, check=False), key)
                for key, fact, s in (
                    ("bandwidth", "memory_bandwidth", bus[column]),
                    ("read_bandwidth", "memory_bandwidth", bus[column]),
                    ("clusters", "clock", clock[row]),
                )
            },
        )
        holding = [
            one
            for one in found.field
            if seconds(one, there, fit, threads=4) <= 0.1
            and reported.read(one.asked(2048), there).stored_bytes <= 60 * GIB
        ]
        scored = [one for one in holding if one.score]
        which = int(found.chosen[row, column])
        if not scored:
            assert which == (NO_EVIDENCE if holding else NOTHING)
            continue
        best = min(scored, key=lambda one: one.better * one.score[0])
        taken = found.field[which]
        assert taken in scored
        assert taken.score[1] <= best.score[2]
        assert best.score[1] <= taken.score[2]


def test_more_memory_bandwidth_and_compute_never_make_it_worse(fit):
    found = codesign.maps(QWEN, [3 * GIB, 7 * GIB, 28 * GIB, 60 * GIB], load("rpi5"), Budget(), fit)
    assert [each.memory_bytes for each in found] == sorted(each.memory_bytes for each in found)

    def best(each):
        scores = np.array([one.score[0] for one in each.field if one.score])
        return np.where(each.chosen >= 0, scores[np.maximum(each.chosen, 0)], np.inf)

    for each in found:  # the least of a tie may be a little worse than the least of another
        value = best(each)
        held = np.isfinite(value)
        assert (held[1:] >= held[:-1]).all()
        assert (held[:, 1:] >= held[:, :-1]).all()
        assert value[-1, -1] == value.min()
    assert best(found[-1])[-1, -1] < best(found[0])[-1, -1]


def test_a_memory_that_changes_nothing_has_no_map_of_its_own(fit):
    device = load("rpi5")
    once = codesign.maps(BITNET, [8 * GIB], device, Budget(), fit)
    twice = codesign.maps(BITNET, [8 * GIB, 9 * GIB], device, Budget(), fit)
    assert len(once) == len(twice) == 1
    assert codesign.maps(QWEN, [2**20], device, Budget(), fit) == []


def test_a_budget_of_energy_takes_away_and_never_adds(fit):
    device = load("rpi5")
    wide, narrow = (
        codesign.maps(QWEN, [60 * GIB], device, Budget(joules_per_token=j), fit)[0].chosen
        for j in (1e9, 2.0)
    )
    free = codesign.maps(QWEN, [60 * GIB], device, Budget(), fit)[0].chosen
    assert (wide == free).all()
    assert ((narrow >= 0) <= (free >= 0)).all()
    assert (narrow != free).any()


# ---- devices -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rpi5", "rpizero2w", "oneplus13_sd8elite", "apple_m2_ultra"])
@pytest.mark.parametrize("suite", [QWEN, BITNET, BY_KIND])
def test_what_a_device_is_best_used_for_is_what_its_questions_answer(fit, name, suite):
    device = load(name)
    found = best_use.standing(suite, device, Budget(), fit)
    field = contenders.suites()[suite]
    holding = [
        one
        for one in field
        if seconds(one, device, fit) <= 0.1
        and reported.read(one.asked(2048), device).stored_bytes <= device.memory_bytes.value
    ]
    scored = [one for one in holding if one.score]
    if not scored:
        assert found.chosen is None
        assert found.verdict == ("no evidence" if holding else "nothing holds")
        return
    best = min(scored, key=lambda one: one.better * one.score[0])
    assert best.name in {found.chosen.name, *found.tied}
    assert found.rate[0] == pytest.approx(1 / seconds(found.chosen, device, fit), rel=1e-3)
    assert found.rate[1] < found.rate[0] < found.rate[2]
    assert (found.chance > 0.95) == (found.rate[1] > 10)


def test_what_a_device_lacks_is_enough_and_a_step_less_is_not(fit):
    device = load("rpi5")
    found = best_use.standing(BITNET, device, Budget(), fit)
    assert found.better.score[2] < found.chosen.score[1]
    bus, _, both = found.lacks
    assert both < bus
    for changes, factor in (("memory_bandwidth",), bus), (("memory_bandwidth", "clock"), both):
        for scale, enough in ((factor, True), (factor / 2**0.125, False)):
            there = whatif.changed(device, [f"{fact}={scale}x" for fact in changes])
            time = seconds(found.better, there, fit, threads=4)
            assert (time <= 0.1 * 1.0001) == enough


def test_measurements_of_a_device_change_what_it_is_best_used_for(fit):
    device = load("rpi5")
    before = best_use.standing(BITNET, device, Budget(), fit)
    line = reported.read(before.chosen.asked(2048), device)
    misses = tuple(
        likeness.miss(replace(line.setting, threads=n), math.log(2.0)) for n in (1, 2, 4)
    )
    after = best_use.standing(BITNET, device, Budget(), replace(fit, misses={"rpi5": misses}))
    assert after.chosen is None or after.chosen.score[0] > before.chosen.score[0]
    assert after.lacks[0] > 1
    mild = tuple(replace(miss, error=0.01) for miss in misses)
    same = best_use.standing(BITNET, device, Budget(), replace(fit, misses={"rpi5": mild}))
    assert same.notes == ("corrected by 3 measurements of this device",)
    assert same.rate[2] / same.rate[1] < before.rate[2] / before.rate[1]


def test_a_device_without_stated_watts_holds_no_budget_of_energy(fit):
    device = replace(load("rpi5"), idle_watts=None, load_watts=None)
    found = best_use.standing(QWEN, device, Budget(joules_per_token=1e6), fit)
    assert (found.chosen, found.better, found.verdict) == (None, None, "no watts stated")
    page = advice.markdown([found], [], Budget(joules_per_token=1e6), "rpi5", "edgewise map")
    (line,) = (line for line in page.splitlines() if line.startswith("| rpi5 |"))
    assert "no watts stated" in line
    assert "energy" not in line
    with pytest.raises(BadInput, match="idle_watts"):
        codesign.maps(QWEN, [GIB], device, Budget(joules_per_token=1.0), fit)


# ---- what is shown -------------------------------------------------------------------------


def test_the_table_has_a_line_for_every_suite_and_device_and_says_what_lacks_evidence(fit):
    names = ("rpi5", "rpizero2w", "ryzen_7950x")
    found = [
        best_use.standing(suite, load(name), Budget(), fit)
        for suite in contenders.suites()
        for name in names
    ]
    rows = list(csv.DictReader(io.StringIO(advice.as_csv(found))))
    assert [(r["suite"], r["device"]) for r in rows] == [(o.suite, o.place.device) for o in found]
    assert all(r["tokens_per_s"] for r in rows if r["score"])
    maps = [
        each
        for suite in contenders.suites()
        for each in codesign.maps(suite, [7 * GIB], load("rpi5"), Budget(), fit)
    ]
    same, among = best_use.agreement(maps, found)
    assert 0 < same <= among <= len(found)
    page = advice.markdown(found, maps, Budget(), "rpi5", "edgewise map")
    assert "MCSD 3B in q8_0" in page.split("No evidence of quality:")[-1]
    assert "nothing holds" in page


def test_a_map_is_drawn_whole(fit, tmp_path):
    maps = codesign.maps(QWEN, [3 * GIB, 7 * GIB], load("rpi5"), Budget(), fit)
    places = [scaling.place(load(name), fit) for name in ("rpi5", "rpi500", "rk3588", "rpi4")]
    path = codesign_figure(maps, places, tmp_path / "map", "title")
    assert path.stat().st_size > 20000
    svg = path.with_suffix(".svg").read_text()
    assert svg.count("<!-- rpi5 -->") == 1
    assert "nan" not in svg
    with pytest.raises(BadInput, match="no map"):
        codesign_figure([], places, tmp_path / "none", "title")


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_is_a_number_above_0(value):
    with pytest.raises(BadInput, match="above 0"):
        Budget(tokens_per_second=value)
    with pytest.raises(BadInput, match="above 0"):
        Budget(joules_per_token=value)


def test_what_no_hardware_reaches_holds_nowhere(fit):
    found = best_use.standing(QWEN, load("ryzen_7950x"), Budget(tokens_per_second=1e300), fit)
    assert found.verdict == "nothing holds"
    assert found.lacks == (None, None, None)


def test_a_budget_that_nothing_holds_has_a_table_and_a_page_without_a_map(tmp_path):
    words = ("--device", "rpi5", "--joules-per-token", "1e-9", "--write", str(tmp_path))
    assert CliRunner().invoke(app, ["map", *words]).exit_code == 0
    page = (tmp_path / "README.md").read_text()
    assert "No map: nothing holds this budget" in page
    assert "codesign.png" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "codesign.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--memory", "much"), "cannot read 'much'"),
        (("--memory", "0"), "each above 0"),
        (("--like", "rpi9"), "unknown device 'rpi9'"),
        (("--depth", "-1"), "depth must be from 0"),
        (("--tokens-per-second", "nan"), "above 0"),
    ],
)
def test_what_cannot_be_mapped_is_told_in_a_line(options, message):
    result = CliRunner().invoke(app, ["map", *options])
    assert isinstance(result.exception, HarnessError | ProfileError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
