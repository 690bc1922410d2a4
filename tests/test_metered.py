"""Joules of a run: counters around timings, instruments around repeated work, and what is kept."""

from __future__ import annotations

import functools
import json
import re
import time

import pytest
from typer.testing import CliRunner

import harness.cli.machine  # noqa: F401 - the verb
from harness import metered, meters
from harness.cli import app
from harness.energy import Meter
from harness.errors import NoMeter

RATE = 200.0


def instrument(name, watts):
    return Meter(
        name=name, method="test", rate_hz=RATE, read_joules=meters.integrated(lambda: watts[0])
    )


@pytest.fixture
def machine(monkeypatch):
    """The meters of a made-up machine; caches of what it has are emptied before and after."""

    def has(counters=(), instruments=()):
        monkeypatch.setattr(metered, "counters", lambda: tuple(counters))
        monkeypatch.setattr(meters, "present", lambda: tuple(instruments))
        metered._counters.cache_clear()
        metered._instrument.cache_clear()

    yield has
    metered._counters.cache_clear()
    metered._instrument.cache_clear()


def test_repeated_work_is_charged_with_the_power_it_draws(machine, tmp_path):
    watts = [2.0]
    machine(instruments=[instrument("rail", [0.5]), instrument("input", watts)])

    taken = []

    def one():
        watts[0], start = 10.0, time.monotonic()
        time.sleep(0.01)
        taken.append(time.monotonic() - start)

    metered.repeat("tg4", tmp_path / "joules", one)
    found = metered.read(tmp_path / "joules")["tg4"]
    assert found.idle_watts == pytest.approx(2, rel=0.05)
    assert found.samples == (pytest.approx(10 * sum(taken) / len(taken), rel=0.25),)
    assert found.method == "test (input)"


def test_a_meter_that_stops_meanwhile_costs_the_joules_and_not_the_run(machine, tmp_path):
    ran = []

    def watts():
        if ran:
            raise NoMeter("BAT0 is charging: unplug the machine")
        return 1.0

    machine(instruments=[Meter(name="BAT0", method="battery", rate_hz=RATE,
                               read_joules=meters.integrated(watts))])  # fmt: skip
    metered.repeat("tg4", tmp_path / "joules", lambda: ran.append(time.sleep(0.001)))
    assert ran
    assert metered.read(tmp_path / "joules") == {}


def test_a_few_samples_are_enough_however_many_processes_time(machine, tmp_path):
    machine(instruments=[instrument("input", [1.0])])
    for _ in range(metered.SAMPLES + 2):
        metered.repeat("tg4", tmp_path / "joules", lambda: time.sleep(0.001))
    assert len(metered.read(tmp_path / "joules")["tg4"].samples) == metered.SAMPLES


def test_counters_are_read_around_a_timing_and_instruments_left_alone(machine, tmp_path):
    def refuse():
        raise AssertionError("an instrument was read beside a counter")

    spent = iter(range(0, 1000, 3))
    package = Meter(name="package-0", method="rapl", rate_hz=1e3, read_joules=lambda: next(spent))
    platform = Meter(name="psys", method="rapl", rate_hz=1e3, read_joules=refuse)
    loud = Meter(name="input", method="test", rate_hz=RATE, read_joules=refuse)
    machine([package, platform], [loud])
    metered.repeat("tg4", tmp_path / "joules", refuse)
    metered.watch("tg4", tmp_path / "joules", loops=2)()
    assert metered.read(tmp_path / "joules")["tg4"].samples == (1.5,)
    assert metered.read(tmp_path / "joules")["tg4"].method == "rapl"


def test_a_machine_without_meters_leaves_no_joules(machine, tmp_path):
    def locked():
        raise NoMeter("root only")

    machine([Meter(name="package-0", method="rapl", rate_hz=1e3, read_joules=locked)],
            [Meter(name="gauge", method="battery", rate_hz=1.0, read_joules=locked)])  # fmt: skip
    metered.repeat("tg4", tmp_path / "joules", lambda: None)
    metered.watch("tg4", tmp_path / "joules", loops=1)()
    assert metered.read(tmp_path / "joules") == {}


def test_all_meters_are_watched_at_once_and_one_that_fails_says_why():
    def locked():
        raise NoMeter("root only")

    def breaks(readings=iter([0.0])):
        for joules in readings:
            return joules
        raise NoMeter("unplugged")

    found = [
        instrument("input", [4.0]),
        Meter(name="package-0", method="rapl", rate_hz=1e3, read_joules=locked),
        Meter(name="gauge", method="battery", rate_hz=RATE, read_joules=breaks),
        instrument("rail", [0.5]),
    ]
    start = time.monotonic()
    by_name = {one.meter: one for one in metered.drawn(found, 0.3)}
    assert time.monotonic() - start < 0.55  # not one after the other
    for name, watts in (("input", 4.0), ("rail", 0.5)):
        one = by_name[name]
        assert one.joules / one.seconds == pytest.approx(watts, rel=0.2)
    assert (by_name["package-0"].reason, by_name["gauge"].reason) == ("root only", "unplugged")
    assert by_name["gauge"].joules is by_name["package-0"].joules is None


def test_the_verb_reads_a_phone_over_adb(monkeypatch):
    def adb(command):
        assert command[:3] == ["adb", "-s", "abc"]
        return "Discharging\n850000\n4000000\n"

    monkeypatch.setattr(meters, "android", functools.partial(meters.android, tool=adb))
    words = ["meter", "--seconds", "0.3", "--adb", "--serial", "abc", "--json"]
    (one,) = json.loads(CliRunner().invoke(app, words).output)
    assert one["joules"] / one["seconds"] == pytest.approx(3.4, rel=0.2)
    text = CliRunner().invoke(app, words[:-1]).output
    assert re.fullmatch(r"phone battery \(adb\): [34]\.\d+ W, .*J in 0\.3 s\n", text)
