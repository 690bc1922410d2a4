"""Joules of settings by hand; the energy model against what was published."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import pytest

from harness import joules, observations, watts
from harness.records import Failed
from harness.scores import Left
from harness.settings import Setting, Work
from targets.profile import Fact, load, load_all

DEVICES = {d.name: d for d in load_all()}


def fact(value: float) -> Fact:
    return Fact(value, "measured", "test")


@pytest.fixture(scope="module")
def left():
    """Every published row, as if its speed had been projected without error."""
    seen = observations.published(DEVICES)
    return [Left(observation=o, seconds=o.seconds) for o in seen]


def setting(phase: str = "decode", tokens: int = 1) -> Setting:
    """10^9 weights of Q4_0 on one of two cores, at 1 W idle and 5 W under load, with DDR4."""
    device = load("rpi5")
    cluster = replace(device.clusters[0], count=fact(2))
    small = replace(
        device, clusters=(cluster,), idle_watts=fact(1), load_watts=fact(5), dram="ddr4", caches={}
    )
    work = Work(
        phase=phase,
        tokens=tokens,
        layers=1,
        weights={"q4_0": 1e9 * tokens},
        others=1e8,
        streamed_bytes=5e8,
        resident_bytes=5e8,
    )
    return Setting(work=work, device=small, threads=1, engine="llama_cpp")


def test_joules_of_a_step_are_those_of_a_hand_calculation():
    """2 s x (1 + 4 / 2) W + 4e9 bit x 20 pJ + 2e9 x 0.03 pJ + 2e8 x 0.6 pJ"""
    found = joules.of_setting(setting(), (2.0, 1.0, 4.0))
    assert found.value == pytest.approx(6 + 0.08 + 6e-5 + 1.2e-4)
    assert found.bound == "cores"
    assert found.low < found.value / 2
    assert found.high > 2 * found.value


def test_a_long_prompt_reads_the_weights_once_for_512_tokens():
    bytes_once = joules.of_setting(setting("prefill", 512), (1e-9, 1e-9, 1e-9)).value
    twice = joules.of_setting(setting("prefill", 513), (1e-9, 1e-9, 1e-9)).value
    assert twice - bytes_once == pytest.approx(4e9 * 20e-12, rel=0.01)


def test_a_device_without_watts_has_no_joules():
    bare = replace(setting(), device=replace(setting().device, load_watts=None))
    assert isinstance(joules.of_setting(bare, (1.0, 1.0, 1.0)), Failed)


def test_every_published_power_says_where_it_was_read():
    with observations.PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    stated = [row for row in rows if row["power_w"] or row["energy_j_per_token"]]
    assert {row["power_from"] for row in stated} == {"wall", "board", "processor", "rail"}
    assert not any(row["power_from"] for row in rows if row not in stated)


def test_modelled_power_holds_against_what_was_published_at_the_wall(left):
    wall, _, _, boards = joules.compare(left, DEVICES)
    assert len(wall.ratios) >= 20
    assert wall.error <= 0.15
    assert abs(wall.bias) <= 0.1
    assert sum(wall.held) / len(wall.held) >= 0.9
    assert len(boards.ratios) >= 25
    assert boards.error <= 0.15
    assert sum(boards.held) / len(boards.held) >= 0.9


def test_a_model_of_twice_the_power_shows_as_bias(left):
    doubled = {
        name: replace(d, load_watts=fact(2 * d.load_watts.value))
        for name, d in DEVICES.items()
        if d.load_watts
    }
    *_, boards = joules.compare(left, DEVICES)
    *_, wrong = joules.compare(left, doubled)
    assert wrong.bias - boards.bias == pytest.approx(math.log(2))
    assert sum(wrong.held) < len(wrong.held) / 2


def test_the_table_counts_figures_and_devices(left):
    lines = joules.lines(joules.compare(left, DEVICES))
    assert lines[2].startswith("| watts at the wall, at the published speed | 20 | 7 |")
    assert len(lines) == 6


def test_general_energy_of_a_cycle_lies_among_the_stated_ones():
    ratios = [
        c.cycle_joules.value / (watts.NARROW_CYCLE_JOULES * c.float32_per_cycle.value**1.5)
        for name in ("rk3588", "rk3576", "pixel6a_tensor_g1")
        for c in load(name).clusters
    ]
    assert math.prod(ratios) ** (1 / len(ratios)) == pytest.approx(1, rel=0.05)
    assert max(ratios) < 2.3
    assert min(ratios) > 1 / 2.3
