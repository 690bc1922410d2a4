"""A day's duty and sustained speed, against hand calculation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from harness import duty, forecast, sustained
from harness.cli import app, daily  # noqa: F401 - the verb
from harness.errors import BadInput
from harness.project import project
from harness.records import Failed, Measured, Projected
from targets.profile import Fact, load, load_all

ASKED = duty.Duty(replies=200, tokens=300, prompt=150)


def row(seconds, joules, device="rpi5", name="tg64"):
    point = forecast.point("mcsd:nano@int8", name, load(device))
    return replace(point, seconds=seconds, joules=joules)


def projected(value, low, high):
    return Projected(value=value, low=low, high=high, model="test")


PROMPT = row(projected(0.5, 0.4, 1), projected(5, 4, 10), name="pp150")
REPLY = row(projected(30, 20, 60), projected(295, 196, 590))


# ---- a duty --------------------------------------------------------------------------------


def test_a_duty_is_read_as_it_is_written():
    assert duty.parse("200x300@150") == ASKED
    assert duty.parse(" 1 X 2 ") == duty.Duty(replies=1, tokens=2, prompt=duty.PROMPT)


@pytest.mark.parametrize(
    "text", ["", "200", "0x300", "200x0", "200x300@0", "2e3x4", "-1x3", "9" * 9]
)
def test_a_duty_that_cannot_be_read_says_how_to_write_it(text):
    with pytest.raises(BadInput, match="write 200x300@150"):
        duty.parse(text)


def test_a_reply_is_decoded_at_its_mean_context():
    assert ASKED.runs == ("pp150", "tg300 @ d300")


def test_a_day_sums_prompts_and_replies():
    """200 x (5 + 295) J = 60 kJ among 60,000 tokens: 1 J each; busy for 200 x 30.5 s"""
    day = duty.day(ASKED, PROMPT, REPLY)
    assert day.joules == duty.Span(60_000, 40_000, 120_000)
    assert day.joules_per_token.value == pytest.approx(1)
    assert day.tokens_per_joule.low == pytest.approx(0.5)
    assert day.tokens_per_joule.high == pytest.approx(1.5)
    assert day.busy_seconds.value == pytest.approx(6100)
    assert day.busy_seconds.low == pytest.approx(4080)
    assert day.busy_seconds.high == pytest.approx(12_200)


def test_a_phone_battery_lasts_its_charge_over_a_days_joules():
    """5 Ah x 3.85 V x 3600 s = 69.3 kJ: 1.155 days of 60 kJ"""
    days = duty.battery_days(duty.Span(60_000, 40_000, 120_000), 5)
    assert days.value == pytest.approx(1.155)
    assert (days.low, days.high) == (pytest.approx(0.5775), pytest.approx(1.7325))


def test_a_million_tokens_of_a_joule_are_a_quarter_of_a_kilowatt_hour():
    cost = duty.electricity(duty.Span(1, 0.5, 2), 0.36)
    assert (cost.value, cost.low, cost.high) == (pytest.approx(0.1), pytest.approx(0.05), 0.2)


def test_the_price_of_a_device_is_shared_among_all_its_tokens():
    """80 dollars over 60,000 tokens x 365.25 days x 4 years, 87.66 million"""
    device = replace(load("rpi5"), price_dollars=Fact(80, "measured", "test"))
    assert duty.purchase(device, ASKED, 4) == pytest.approx(80 / 87.66)
    assert duty.purchase(replace(device, price_dollars=None), ASKED, 4) is None


def test_what_was_measured_counts_as_well_as_what_is_projected():
    measured = replace(REPLY, joules=Measured(samples=(295.0,) * 5, method="test"))
    assert duty.day(ASKED, PROMPT, measured).joules.value == 60_000


def test_a_duty_longer_than_a_day_fails():
    long = replace(REPLY, seconds=projected(3600, 3000, 4000))
    found = duty.day(ASKED, PROMPT, long)
    assert found == Failed(reason="the duty would take 200 hours a day")


def test_a_duty_of_a_device_without_watts_fails_with_its_reason():
    dark = replace(REPLY, joules=Failed(reason="no power model"))
    assert duty.day(ASKED, PROMPT, dark) == Failed(reason="no power model")


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf")])
def test_impossible_batteries_prices_and_lives_are_refused(wrong):
    one = duty.Span(1, 1, 1)
    with pytest.raises(BadInput, match="a battery must be above 0 Ah"):
        duty.battery_days(one, wrong)
    with pytest.raises(BadInput, match="a price per kWh must be above 0"):
        duty.electricity(one, wrong)
    with pytest.raises(BadInput, match="a life must be above 0 years"):
        duty.purchase(load("rpi5"), ASKED, wrong)


def test_the_verb_says_what_the_module_computes():
    words = ["duty", "200x300@150", "--device", "rpi5", "--candidate", "mcsd:110m@int4"]
    words += ["--battery-ah", "5", "--price-per-kwh", "0.3", "--life-years", "3", "--json"]
    done = CliRunner().invoke(app, words)
    (answer,) = json.loads(done.output)["answers"]
    rows = [forecast.point("mcsd:110m@int4", run, load("rpi5")) for run in ASKED.runs]
    day = duty.day(ASKED, *rows)
    assert answer["day"]["joules"]["value"] == pytest.approx(day.joules.value)
    assert answer["battery_days"]["low"] == pytest.approx(69_300 / day.joules.high)
    told = CliRunner().invoke(app, [*words[:-1], "--device", "dragon_q8b"]).output
    assert "days of a full battery" in told
    assert "dragon_q8b: no power model" in told
    assert set(rows[0].seconds.flags) <= set(answer["notes"])
    assert all(f"  {why}\n" in told for why in answer["notes"])


# ---- sustained -----------------------------------------------------------------------------


def test_a_fact_tells_what_is_left_of_a_burst():
    device = load("galaxy_s25ultra_sd8elite")
    warm = sustained.seconds(projected(1 / 37, 1 / 60, 1 / 20), device)
    assert 1 / warm.value == pytest.approx(19, rel=0.02)
    assert warm.high / warm.low == pytest.approx(3)
    assert "37 tokens/s fell to 19" in " ".join(warm.flags)


def test_a_phone_without_a_fact_gets_a_range_with_its_reason():
    warm = sustained.seconds(projected(1.0, 0.5, 2.0), load("oneplus12_sd8gen3"))
    assert (warm.low, warm.high) == (0.5, pytest.approx(2 * 12.4 / 3.8, rel=0.02))
    assert warm.value == pytest.approx((12.4 / 3.8) ** 0.5, rel=0.02)
    assert "no fact for this device" in " ".join(warm.flags)


def test_a_clock_that_falls_bounds_the_loss_of_speed():
    found = sustained.share(load("n150_g3plus"))
    assert (found.least, found.most) == (0.76, 1)


def test_a_board_keeps_its_speed():
    assert sustained.note(load("rpi5")) == ""
    same = sustained.seconds(projected(1.0, 0.5, 2.0), load("rpi5"))
    assert (same.value, same.low, same.high) == (1.0, 0.5, 2.0)


def test_every_projection_of_a_burst_that_does_not_last_says_so():
    for device in load_all():
        work = forecast.settle("mcsd:nano@int8", "tg64", load("rpi5"))[0]
        found = project(work, device, 1)
        if isinstance(found, Projected):
            said = any(flag.startswith("burst: ") for flag in found.flags)
            assert said != sustained.share(device).lasts, device.name
    assert not sustained.share(load("oneplus13_sd8elite")).lasts


def test_a_sustained_row_replaces_the_note_of_the_burst():
    point = forecast.point("mcsd:nano@int8", "tg64", load("oneplus13_sd8elite"))
    warm = sustained.row(point, load("oneplus13_sd8elite"))
    assert not any(flag.startswith("burst") for flag in warm.seconds.flags)
    assert warm.seconds.value > point.seconds.value
    assert warm.joules == point.joules
