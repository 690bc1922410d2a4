"""Hardware that is not: changes of facts, what they are worth, and what is required."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from harness import energy, forecast, whatif
from harness.cli import app, projecting  # noqa: F401 - the verbs
from harness.errors import BadInput
from harness.plot import tornado_figure
from harness.project import project
from targets.profile import load

MODEL = "mcsd:110m@int4"


def test_changes_touch_what_they_name_and_nothing_else():
    before = load("rpi5")
    after = whatif.changed(before, ["memory_bandwidth=2x", "clock=3GHz", "memory=16GiB"])
    assert after.bandwidth.value == 2 * before.bandwidth.value
    for threads, fact in after.read_bandwidth.items():
        assert fact.value == 2 * before.read_bandwidth[threads].value
    assert after.clusters[0].clock_hz.value == 3e9
    assert after.memory_bytes.value == 16 * 2**30
    assert after.caches == before.caches
    assert after.clusters[0].count == before.clusters[0].count


def test_cores_are_added_as_a_cluster_and_draw_power():
    before = load("rpi5")
    after = whatif.changed(before, ["cores=+4xA55@1.8"])
    assert [(c.core, c.count.value) for c in after.clusters] == [
        ("cortex-a76", 4),
        ("cortex-a55", 4),
    ]
    assert after.cores == before.cores + 4
    assert after.load_watts.value > before.load_watts.value
    twice = whatif.changed(before, ["cores=2x"])
    assert twice.load_watts.value == pytest.approx(
        2 * before.load_watts.value - before.idle_watts.value
    )


def test_a_boost_follows_its_clock_and_new_cores_have_none():
    before = load("n100")
    after = whatif.changed(before, ["clock=2x", "cores=+4xgracemont@3.0"])
    old, new = after.clusters[0], after.clusters[1]
    assert old.boost_hz.value == 2 * before.clusters[0].boost_hz.value
    assert (new.clock_hz.value, new.boost_hz) == (3e9, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("memory_bandwidth=0", "must be from"),
        ("memory_bandwidth=-2x", "must be from"),
        ("memory_bandwidth=nan", "cannot read"),
        ("memory_bandwidth", "cannot read"),
        ("memory_bandwidth=fast", "cannot read"),
        ("clock=99GHz", "must be from"),
        ("colour=2x", "unknown fact 'colour'"),
        ("cores=+10000xA76@2.4", "10004 cores"),
        ("cores=+0xA76@2.4", "whole number"),
        ("cores=0.3x", "whole number"),
        ("cores=more", "cannot read"),
        ("cores=1.2.3x", "cannot read"),
        ("cores=+1xA76@.", "cannot read"),
        ("cores=+99999999999999xA76@2", "cannot read"),
        ("memory_bandwidth=1e300", "must be from"),
        ("clock=1e300x", "must be from"),
        ("cache=0", "must be from"),
        ("cache=-1x", "must be from"),
        ("cache=1e300", "must be from"),
        ("idle=50", "more than load"),
        ("load=1", "idle would be"),
    ],
)
def test_impossible_hardware_gets_one_clear_line(change, message):
    with pytest.raises(BadInput, match=message) as refused:
        whatif.changed(load("rpi5"), [change])
    assert "\n" not in str(refused.value)


def test_what_a_fact_is_worth_predicts_a_small_change():
    device = load("rpi5")
    spec, threads = forecast.settle(MODEL, "tg64", device)
    worth = {w.fact: w for w in whatif.elasticities(spec, device, threads)}
    before = project(spec, device, threads)
    after = project(spec, whatif.changed(device, ["memory_bandwidth=1.02x"]), threads)
    slope = math.log(before.value / after.value) / math.log(1.02)
    assert worth["memory_bandwidth"].speed == pytest.approx(slope, abs=0.01)
    # seconds scale with one over (all bandwidths, all clocks), so worths sum to at most one
    assert 0.9 < worth["memory_bandwidth"].speed + worth["clock"].speed <= 1.001
    joules = energy.modelled(before, spec, device, threads)
    more = energy.modelled(before, spec, whatif.changed(device, ["load=1.02x"]), threads)
    expected = math.log(more.value / joules.value) / math.log(1.02)
    assert worth["load"].joules == pytest.approx(expected, abs=0.01)


def test_what_is_required_reaches_the_rate_and_a_little_less_does_not():
    device = replace(load("rpi5"), memory_bytes=load("ryzen_7950x").memory_bytes)
    spec, threads = forecast.settle("mcsd:500m@int4", "tg64", device)
    needs = whatif.needed(spec, device, threads, 20)
    for scale, reached in ((1.001, True), (0.999, False)):
        value = f"memory_bandwidth={scale * needs.bandwidth}"
        found = project(spec, whatif.changed(device, [value]), threads)
        assert (spec.tokens / found.value >= 20) == reached
    assert needs.both_scale < needs.bandwidth / device.bandwidth.value + 1e-9 or (
        needs.both_scale <= 1
    )


def test_facts_at_their_limits_are_worth_something_too():
    device = whatif.changed(load("rpi5"), ["clock=10GHz", "memory_bandwidth=1e13", "idle=11.5"])
    spec, threads = forecast.settle(MODEL, "tg64", device)
    worth = {w.fact: w for w in whatif.elasticities(spec, device, threads)}
    assert worth["clock"].speed > 0


def test_a_rate_that_anything_reaches_needs_no_more_than_the_least_that_is_tried():
    device = load("rpi5")
    spec, threads = forecast.settle(MODEL, "tg64", device)
    needs = whatif.needed(spec, device, threads, 1e-300)
    assert needs.clock_scale == needs.both_scale == whatif.SCALES[0]
    never = whatif.needed(spec, device, threads, 1e300)
    assert never.bandwidth is never.clock_scale is never.both_scale is None


def test_what_cannot_be_trained_is_told_before_anything_is_required():
    with pytest.raises(BadInput, match="no 'train' workload"):
        forecast.settle(MODEL, "train", load("rpi5"))
    spec, threads = forecast.settle("mcsd:nano", "train", load("rpi5"))
    assert whatif.needed(spec, load("rpi5"), threads, 100.0).clock_scale > 0


def test_what_is_required_is_told_with_its_doubts_whatever_the_memory():
    """A model that does not fit asks for as much speed as on the same board with room for it."""
    small, model, run = load("rpizero2w"), "attention:500m@int4", "tg64 @ d4096"
    large = replace(small, memory_bytes=load("rpi5").memory_bytes)
    spec, threads = forecast.settle(model, run, whatif.roomy(small))
    assert spec.resident_bytes > small.memory_bytes.value
    assert (spec, threads) == forecast.settle(model, run, large)
    needs = whatif.needed(spec, small, threads, 20)
    assert needs == whatif.needed(spec, large, threads, 20)
    now = project(spec, large, threads)
    assert needs.notes == now.flags
    assert needs.factor == pytest.approx(now.high / now.value)
    words = ["require", "--tokens-per-second", "20", "--candidate", model, "--like", "rpizero2w"]
    words += ["--workload", run]
    told = CliRunner().invoke(app, words).output
    assert all(why in told for why in needs.notes)
    assert f"x{needs.both_scale:.3g}" in told


def test_no_clock_makes_up_for_a_bus_that_is_too_slow():
    device = load("rpi3bplus")
    spec, threads = forecast.settle("mcsd:500m@int4", "tg64", device)
    needs = whatif.needed(
        spec, replace(device, memory_bytes=load("rpi5").memory_bytes), threads, 50
    )
    assert needs.clock_scale is None
    assert needs.bandwidth is None or needs.bandwidth > device.bandwidth.value
    with pytest.raises(BadInput, match="above 0"):
        whatif.needed(spec, device, threads, 0)


def test_a_tornado_is_drawn(tmp_path):
    worths = (whatif.Worth(fact="clock", speed=0.7, joules=-0.2),)
    assert tornado_figure(worths, tmp_path / "t", "title").stat().st_size > 5000
    with pytest.raises(BadInput, match="no fact"):
        tornado_figure((), tmp_path / "t", "title")
