"""Joules of a run: counters around timings, instruments around repeated work, and what is kept."""

from __future__ import annotations

import time

import pytest

from harness import metered, meters
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

    def one():
        watts[0] = 10.0
        time.sleep(0.01)

    metered.repeat("tg4", tmp_path / "joules", one)
    found = metered.read(tmp_path / "joules")["tg4"]
    assert found.idle_watts == pytest.approx(2, rel=0.05)
    assert found.samples == (pytest.approx(10 * 0.01, rel=0.25),)
    assert found.method == "test (input)"


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
