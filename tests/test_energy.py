"""Energy: what the model may say, RAPL against a made-up sysfs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness import energy, watts
from harness.errors import BadInput, NoMeter
from harness.records import Call, Failed, Measured, Projected, Workload
from targets.profile import load

SECONDS = Projected(value=2.0, low=1.5, high=3.0, model="test")


def workload(weight_bytes=10**9, operations=10**9, tokens=1) -> Workload:
    call = Call(
        kernel="matvec",
        sizes={},
        count=1,
        operations=operations,
        weight="q",
        weight_bytes=weight_bytes,
        format="int8",
    )
    return Workload(
        name="tg",
        phase="decode",
        tokens=tokens,
        depth=0,
        layers=1,
        calls=(call,),
        resident_bytes=weight_bytes,
    )


def test_modelled_energy_is_never_called_measured():
    found = energy.modelled(Measured(samples=(1.0,), method="pyperf"), workload(), load("rpi5"), 4)
    assert isinstance(found, Projected)
    assert found.low < found.value < found.high


def test_energy_lies_between_idle_alone_and_load_with_traffic():
    device = load("rpi5")
    found = energy.modelled(SECONDS, workload(), device, 4)
    assert 2 * 2.8 < found.value < 2 * 11.6 * 1.3


def test_fewer_threads_draw_less_power():
    device = load("rk3588")
    joules = [energy.modelled(SECONDS, workload(), device, n).value for n in (1, 2, 4, 8)]
    assert joules == sorted(joules)
    assert joules[0] < joules[-1]


def test_little_cores_draw_less_than_big_ones():
    device = load("rk3588")
    big = watts.active_share(device, 4)
    assert 0.6 < big < 0.95
    assert watts.active_share(device, 8) == pytest.approx(1)


def test_a_stated_energy_of_a_cycle_takes_the_place_of_the_general_one():
    """RK3588 by its device tree: 4 x 0.896 W of A76 (2.208 GHz), 4 x 0.370 W of A55."""
    device = load("rk3588")
    big, little = device.clusters
    per_core = [c.cycle_joules.value * hertz for c, hertz in ((big, 2.208e9), (little, 1.8e9))]
    assert per_core == pytest.approx([0.8957, 0.3704], rel=0.001)
    expected = (
        big.clock_hz.value
        * 4.057e-10
        / (big.clock_hz.value * 4.057e-10 + little.clock_hz.value * 2.058e-10)
    )
    assert watts.active_share(device, 4) == pytest.approx(expected)
    bare = [replace(c, cycle_joules=None) for c in device.clusters]
    assert watts.active_share(replace(device, clusters=tuple(bare)), 4) > expected


def test_the_cores_of_a_board_draw_less_than_the_board_adds_under_load():
    device = load("rk3588")
    assert 3 < watts.core_power(device.clusters) < device.load_watts.value - device.idle_watts.value


@pytest.mark.parametrize(("dram", "joules"), [("lpddr4", 0.108), ("ddr4", 0.16), ("", 0.096)])
def test_moving_a_gigabyte_costs_what_its_memory_costs(dram, joules):
    assert watts.memory_joules(10**9, replace(load("rpi5"), dram=dram)) == pytest.approx(joules)


def test_a_model_in_the_cache_moves_its_bytes_cheaply():
    device = load("rpi5")
    small, large = (watts.traffic_joules(workload(n), device) for n in (10**6, 10**7))
    assert small < large / 10


def test_every_token_adds_the_energy_of_its_traffic():
    device = load("rpi5")
    one, many = (energy.modelled(SECONDS, workload(tokens=n), device, 4).value for n in (1, 64))
    assert many - one == pytest.approx(63 * watts.traffic_joules(workload(), device), rel=0.01)


def test_failed_seconds_give_failed_joules():
    found = energy.modelled(Failed(reason="does not fit"), workload(), load("rpi5"), 4)
    assert found == Failed(reason="does not fit")


def test_a_device_without_power_facts_says_so():
    found = energy.modelled(SECONDS, workload(), replace(load("rpi5"), load_watts=None), 4)
    assert isinstance(found, Failed)
    assert "rpi5 states no idle_watts" in found.reason


def test_no_threads_are_refused():
    with pytest.raises(BadInput):
        energy.modelled(SECONDS, workload(), load("rpi5"), 0)


def test_estimated_power_is_flagged_and_widens_the_interval():
    known = energy.modelled(SECONDS, workload(), load("rpi5"), 4)
    guessed = energy.modelled(SECONDS, workload(), load("oneplus12_sd8gen3"), 4)
    assert guessed.flags
    assert not known.flags
    assert guessed.high / guessed.value > known.high / known.value


# ---- RAPL ----------------------------------------------------------------------------------


def zone(sysfs: Path, name: str, label: str, microjoules: int, most: int = 1_000_000) -> Path:
    folder = sysfs / "class" / "powercap" / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder / "energy_uj"


def test_a_machine_without_meters_has_none(tmp_path):
    assert energy.meters(tmp_path) == ()


def test_packages_platform_and_memory_are_listed_but_cores_are_not(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    zone(tmp_path, "intel-rapl:0:0", "core", 0)
    zone(tmp_path, "intel-rapl:0:1", "dram", 0)
    zone(tmp_path, "intel-rapl:1", "psys", 0)
    (tmp_path / "class" / "powercap" / "intel-rapl-mmio:0").mkdir()
    found = energy.meters(tmp_path)
    assert [m.name for m in found] == ["package-0", "package-0 dram", "psys"]
    assert {m.method for m in found} == {"rapl"}


def test_a_meter_counts_from_its_first_reading(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 400_000)
    (meter,) = energy.meters(tmp_path)
    assert meter.read_joules() == 0
    counter.write_text("900000\n")
    assert meter.read_joules() == pytest.approx(0.5)


def test_a_counter_that_starts_over_loses_nothing(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 900_000, most=1_000_000)
    (meter,) = energy.meters(tmp_path)
    meter.read_joules()
    for count in (100_000, 950_000, 50_000):
        counter.write_text(f"{count}\n")
        meter.read_joules()
    assert meter.read_joules() == pytest.approx(0.2 + 0.85 + 0.1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_counter_that_may_not_be_read_says_how_to_allow_it(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    counter.chmod(0)
    (meter,) = energy.meters(tmp_path)
    with pytest.raises(NoMeter, match="sudo chmod a\\+r"):
        meter.read_joules()


def test_permission_denied_becomes_one_line(tmp_path, monkeypatch):
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    (meter,) = energy.meters(tmp_path)

    def refuse(*_args, **_options):
        raise PermissionError("denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(NoMeter) as caught:
        meter.read_joules()
    assert "sudo chmod a+r" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_counter_that_holds_no_number_is_refused(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    (meter,) = energy.meters(tmp_path)
    counter.write_text("many\n")
    with pytest.raises(NoMeter, match="no number"):
        meter.read_joules()


def test_idle_power_is_joules_over_time():
    readings = iter((10.0, 11.0))
    meter = energy.Meter(name="m", method="test", rate_hz=1000, read_joules=lambda: next(readings))
    assert energy.mean_watts(meter, 0.05) == pytest.approx(1 / 0.05, rel=0.3)
