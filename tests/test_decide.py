from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random

import pytest

from harness import answer, judge, plugins
from harness.decide import recommend
from harness.errors import BadInput, UnknownName
from harness.evidence import Reading
from harness.judge import Limits
from harness.pareto import measured_first, pareto
from harness.records import Failed, Measured, Projected
from tests import rows

GIVEN = rows.many()


def metrics(*names):
    return [plugins.metrics()[name] for name in names]


def named(verdicts):
    return [(v.choice.row.candidate, v.choice.row.device) for v in verdicts]


def timed(low, value, high, **changes):
    """A projected rpi5 row of 64 tokens with this interval [s/token]."""
    seconds = Projected(value=64 * value, low=64 * low, high=64 * high, model="m")
    return dataclasses.replace(rows.row(device="rpi5"), seconds=seconds, **changes)


@pytest.mark.parametrize("names", [("seconds_per_token", "bits_per_byte"), ("joules_per_token",)])
def test_the_front_is_what_a_search_over_all_pairs_leaves(names):
    given = [row for row in GIVEN if row.device == "rpi5" and row.workload == "tg64"]
    chosen = metrics(*names)
    points = {id(row): [m.value(row) for m in chosen] for row in given}
    scored = [row for row in given if None not in points[id(row)]]
    beaten = {
        id(a)
        for a, b in itertools.permutations(scored, 2)
        if all(y <= x for x, y in zip(points[id(a)], points[id(b)], strict=True))
        and points[id(a)] != points[id(b)]
    }
    front = pareto(given, chosen)
    assert {id(row) for row in front} == {id(row) for row in scored} - beaten
    assert 0 < len(front) < len(scored)


def test_a_projection_never_beats_a_measurement():
    measured = rows.row()
    rival = dataclasses.replace(
        rows.row("mcsd"),
        environment=None,
        seconds=Projected(value=1e-9, low=1e-9, high=1e-9, model="m"),
        quality=dataclasses.replace(measured.quality, value=0.1),
    )
    chosen = metrics("seconds_per_token", "bits_per_byte")
    assert len(pareto([measured, rival], chosen)) == 2
    assert pareto([measured, rival], chosen, together=True) == [rival]


def test_metered_and_modelled_energies_do_not_compete():
    modelled = rows.row("mcsd")
    metered = dataclasses.replace(
        rows.row(), joules=Measured(samples=(1e3,), method="rapl"), candidate="other"
    )
    assert len(pareto([modelled, metered], metrics("joules_per_token"))) == 2


def test_failures_are_on_no_front():
    failed = dataclasses.replace(rows.row(), seconds=Failed(reason="worker died"))
    assert pareto([failed], metrics("seconds_per_token")) == []


def test_a_measured_row_takes_the_place_of_its_projection():
    projected = rows.row(device="rpi5")
    measured = dataclasses.replace(
        projected,
        seconds=Measured(samples=(1.0,) * 10, method="pyperf"),
        environment=rows.environment("board"),
    )
    assert measured_first([projected, measured]) == [measured]
    ranked = recommend([projected, measured]).ranked
    assert [v.choice.kind for v in ranked] == ["measured"]


def test_a_failed_measurement_does_not_hide_the_projection():
    projected = rows.row(device="rpi5")
    failed = dataclasses.replace(
        projected, seconds=Failed(reason="hung"), environment=rows.environment("board")
    )
    assert projected in measured_first([projected, failed])


def test_the_ranking_is_by_quality_and_then_by_latency():
    ranked = recommend(GIVEN, "rpi5").ranked
    keys = [(v.choice.quality.value, v.choice.seconds.value) for v in ranked]
    assert keys == sorted(keys)
    assert len(set(named(ranked))) == len(ranked)


def test_every_choice_that_is_ranked_holds_every_limit_and_no_other_does():
    limits = Limits(
        min_tokens_per_second=600, max_memory_bytes=8 * 2**20, max_joules_per_token=0.004
    )
    found = recommend(GIVEN, "rpi5", limits)
    holding = {
        row.candidate
        for row in GIVEN
        if row.device == "rpi5" and row.workload == "tg64" and row.quality
        if 64 / row.seconds.value >= 600
        and row.resident.value <= 8 * 2**20
        and row.joules.value / 64 <= 0.004
    }
    assert {name for name, _ in named(found.ranked)} == holding
    broken = {what for v in found.rejected for what in v.broken}
    assert {"speed", "memory", "energy", "no score"} <= broken


def test_without_a_device_measured_and_projected_are_ranked_apart():
    kinds = [v.choice.kind for v in recommend(GIVEN).ranked]
    assert kinds == sorted(kinds)
    assert set(kinds) == {"measured", "projected"}
    together = [v.choice.kind for v in recommend(GIVEN, together=True).ranked]
    assert together != sorted(together)


def test_reasons_name_the_limit_the_value_and_the_mark():
    row = timed(0.08, 0.1, 0.11)
    (verdict,) = recommend([row], limits=Limits(min_tokens_per_second=20)).rejected
    assert verdict.misses == ("speed ~10.0 tokens/s < 20.0 tokens/s",)
    assert verdict.shortfall == pytest.approx(2)


def test_an_interval_across_the_limit_is_said_on_both_sides():
    row = timed(0.04, 0.05, 0.08)
    limits = Limits(min_tokens_per_second=18)
    (verdict,) = recommend([row], limits=limits).ranked
    assert "interval 12.5 tokens/s to 25.0 tokens/s straddles" in verdict.doubts[0]
    (verdict,) = recommend([row], limits=Limits(min_tokens_per_second=22)).rejected
    assert "straddles the limit" in verdict.misses[0]


def test_a_value_at_the_limit_holds_it():
    row = timed(0.05, 0.05, 0.05)
    assert recommend([row], limits=Limits(min_tokens_per_second=20)).ranked


def test_an_unknown_quantity_never_holds_a_limit():
    row = dataclasses.replace(rows.row(), joules=Failed(reason="no meter"))
    (verdict,) = recommend([row], limits=Limits(max_joules_per_token=1)).rejected
    assert verdict.misses == ("energy unknown, limit 1.00 J/token",)
    assert math.isinf(verdict.shortfall)


def test_the_first_token_is_that_of_the_same_candidate_device_and_threads():
    given = [
        rows.row(workload=w, device="rpi5", threads=t) for w in ("tg64", "ttft") for t in (1, 2)
    ]
    slow, fast = (r.seconds.value for r in given[2:])
    middle = (slow + fast) / 2
    found = recommend(given, limits=Limits(max_seconds_to_first_token=middle))
    assert [v.choice.row.threads for v in found.ranked] == [2]


def test_random_weights_are_never_recommended():
    found = recommend([rows.row(size="110m")])
    assert found.ranked == ()
    assert found.rejected[0].misses == ("no quality: speed only, random weights",)


def test_scores_on_different_corpora_are_not_ranked_together():
    other = rows.row("mcsd")
    other = dataclasses.replace(
        other, quality=dataclasses.replace(other.quality, corpus="tinyshakespeare", value=0.1)
    )
    found = recommend([rows.row(), rows.row(step="int8"), other])
    assert found.corpus == "pydocs"
    assert "tinyshakespeare" in found.rejected[0].misses[0]


def test_accuracy_ranks_where_accuracy_is_asked_for():
    def scored(value, name):
        quality = dataclasses.replace(rows.row().quality, metric="accuracy", value=value)
        return dataclasses.replace(rows.row(), candidate=name, quality=quality)

    given = [scored(0.8, "worse"), scored(0.9, "better"), scored(0.4, "poor")]
    found = recommend(given, limits=Limits(min_accuracy=0.5))
    assert [name for name, _ in named(found.ranked)] == ["better", "worse"]
    assert found.rejected[0].broken == ("accuracy",)


def test_where_nothing_holds_the_nearest_miss_is_named():
    limits = Limits(min_tokens_per_second=1e6)
    found = recommend(GIVEN, limits=limits)
    fastest = min(
        (r for r in GIVEN if r.workload == "tg64" and r.quality and r.environment is None),
        key=lambda r: r.seconds.value,
    )
    assert named([found.nearest]) == [(fastest.candidate, fastest.device)]
    assert "Nearest miss: " + fastest.candidate in answer.text(found)


def test_depth_chooses_the_decode_rows():
    found = recommend(GIVEN, "rpi5", depth=4096)
    assert {v.choice.row.workload for v in found.ranked} == {"tg64 @ d4096"}
    with pytest.raises(BadInput, match="depths with rows: 0, 1024, 2048, 4096"):
        recommend(GIVEN, depth=77)


def test_an_unknown_device_names_those_with_rows():
    with pytest.raises(UnknownName, match="host, pixel-8, rpi-zero-2w, rpi5"):
        recommend(GIVEN, "rpi6")


def test_the_answer_does_not_depend_on_the_order_of_rows():
    shuffled = random.Random(0).sample(GIVEN, len(GIVEN))
    assert answer.as_json(recommend(GIVEN)) == answer.as_json(recommend(shuffled))


@pytest.mark.parametrize("width", [80, 100, 120])
def test_every_answer_fits_and_says_that_it_speaks_of_cpu_execution(width):
    limits = Limits(min_tokens_per_second=2000, max_memory_bytes=2**22)
    for given in (recommend(GIVEN, limits=limits), recommend(GIVEN, depth=1024, together=True)):
        text = answer.text(given, width)
        assert "CPU execution" in text
        assert max(map(len, text.splitlines())) <= width
        assert "CPU execution" in json.loads(answer.as_json(given))["scope"]


def test_projections_are_marked_in_the_answer():
    text = answer.text(recommend([rows.row(device="rpi5")]))
    assert "PROJECTED" in text
    assert "MEASURED" not in text
    assert text.count("~") >= 4


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64MiB", 64 * 2**20),
        ("64 mb", 64_000_000),
        ("1.5GiB", 3 * 2**29),
        ("20", 20),
        ("100 B", 100),
        ("2kB", 2000),
    ],
)
def test_memory_is_read_with_its_unit(text, count):
    assert judge.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "64 MX", "-3MiB", "1e3", "64MiB!", "nan"])
def test_memory_that_cannot_be_read_says_what_can(text):
    with pytest.raises(BadInput, match="write it like 64MiB"):
        judge.parse_bytes(text)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_a_limit_that_makes_no_sense_is_refused(value):
    with pytest.raises(BadInput, match="max joules per token must be a number above 0"):
        Limits(max_joules_per_token=value)


def test_the_chance_of_a_limit_follows_from_the_interval():
    half = Reading(value=10.0, low=10 / 1.5, high=15.0, mark="P", source="test")
    assert judge.chance_of(half, 1.0) == pytest.approx(0.5)
    # at an end of a 90 % interval, 5 % lie beyond
    assert judge.chance_of(half, 1.5) == pytest.approx(0.05, abs=0.002)
    assert judge.chance_of(half, 1 / 1.5) == pytest.approx(0.95, abs=0.002)
    sure = Reading(value=10.0, low=10.0, high=10.0, mark="M", source="test")
    assert (judge.chance_of(sure, 0.99), judge.chance_of(sure, 1.01)) == (1.0, 0.0)


# ---- what to measure first -----------------------------------------------------------------


def pair(first, second, better=(1.5, 1.7), error=0.01, **limits):
    """What to measure first of two projected candidates with these intervals [s/token]."""
    given = []
    for name, seconds, value in zip(("one:nano", "two:nano"), (first, second), better, strict=True):
        row = timed(*seconds, candidate=name)
        quality = dataclasses.replace(row.quality, value=value, standard_error=error)
        given.append(dataclasses.replace(row, quality=quality))
    return recommend(given, "rpi5", Limits(**limits)).measure_first


OPEN, FAST, SLOW = (0.05, 0.1, 0.2), (0.01, 0.012, 0.014), (1.0, 1.2, 1.4)


def test_the_better_one_is_measured_where_it_is_open_whether_it_holds():
    told = pair(OPEN, FAST, min_tokens_per_second=10.0)
    assert told.startswith("one:nano on rpi5, tg64, 1 thread: taken before all others")
    assert "50% sure" in told


def test_nothing_is_measured_where_the_better_one_surely_holds_and_is_better():
    assert pair(FAST, OPEN, min_tokens_per_second=10.0) == ""
    assert pair(FAST, OPEN) == ""


def test_what_surely_fails_is_not_measured():
    told = pair(SLOW, OPEN, min_tokens_per_second=10.0)
    assert told.startswith("two:nano on rpi5, tg64, 1 thread: the only one that may be taken")


def test_where_quality_cannot_tell_two_apart_the_less_certain_time_is_measured():
    near = {"better": (1.60, 1.605), "error": 0.05}
    told = pair((0.05, 0.06, 0.07), OPEN, **near)
    assert told.startswith("two:nano")
    assert "quality cannot tell" in told
    assert pair(FAST, OPEN, **near) == "", "the first is faster in any case"


def test_a_doubt_that_many_share_is_told_once_with_their_ranks():
    shared = "extrapolates: never timed here"
    given = []
    for number in range(5):
        row = timed(0.01, 0.02, 0.03, candidate=f"c{number}:nano")
        flags = (shared,) if number != 3 else ()
        given.append(
            dataclasses.replace(row, seconds=dataclasses.replace(row.seconds, flags=flags))
        )
    text = answer.text(recommend(given, "rpi5", Limits()))
    assert text.count(shared) == 1
    assert f"1-3, 5: {shared}" in text
