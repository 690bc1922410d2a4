"""Energy: the model against published watts, RAPL against a made-up sysfs."""

from __future__ import annotations

import csv
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness import energy, observations
from harness.errors import BadInput, NoMeter
from harness.records import Call, Failed, Measured, Projected, Workload
from targets.profile import load, load_all

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
    assert 2 * 2.8 < found.value < 2 * 9.7 * 1.3


def test_fewer_threads_draw_less_power():
    device = load("rk3588")
    joules = [energy.modelled(SECONDS, workload(), device, n).value for n in (1, 2, 4, 8)]
    assert joules == sorted(joules)
    assert joules[0] < joules[-1]


def test_little_cores_draw_less_than_big_ones():
    device = load("rk3588")
    big = energy.active_share(device, 4)
    assert 0.6 < big < 0.95
    assert energy.active_share(device, 8) == pytest.approx(1)


def test_a_model_in_the_cache_moves_its_bytes_cheaply():
    device = load("rpi5")
    small, large = (energy.traffic_joules(workload(n), device) for n in (10**6, 10**7))
    assert small < large / 10


def test_every_token_adds_the_energy_of_its_traffic():
    device = load("rpi5")
    one, many = (energy.modelled(SECONDS, workload(tokens=n), device, 4).value for n in (1, 64))
    assert many - one == pytest.approx(63 * energy.traffic_joules(workload(), device), rel=0.01)


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


def test_modelled_power_holds_against_board_powers_published_for_language_models():
    """Watts at the wall during decode, of boards that state idle and stress-test power."""
    with observations.PUBLISHED.open(encoding="utf-8", newline="") as file:
        watts = [row["power_w"] for row in csv.DictReader(file)]
    logs = []
    for seen in observations.published({d.name: d for d in load_all()}):
        device = seen.setting.device
        stated = watts[seen.row]
        # A "CPU rail" of one mini PC is no wall power, and the P550 loads little in stress-ng.
        if not stated or device.name == "ryzen_ai5_340_minipc" or device.load_watts is None:
            continue
        seconds = Measured(samples=(seen.seconds,), method="published")
        done = workload(int(seen.setting.work.streamed_bytes), 0)
        found = energy.modelled(seconds, done, device, seen.setting.threads)
        logs.append(math.log(found.value / seen.seconds / float(stated)))
    inside = [abs(log) <= energy.DOUBT for log in logs]
    assert len(logs) >= 18
    assert sum(inside) / len(inside) >= 0.9


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
    assert energy.idle_watts(meter, 0.05) == pytest.approx(1 / 0.05, rel=0.3)


def test_too_short_an_idle_baseline_is_refused():
    meter = energy.Meter(name="slow", method="test", rate_hz=1, read_joules=lambda: 0.0)
    with pytest.raises(BadInput, match="too short for slow"):
        energy.idle_watts(meter, 2)
