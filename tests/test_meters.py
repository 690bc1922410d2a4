"""Instruments on recorded and simulated sources."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from harness import metered, meters
from harness.energy import Meter
from harness.errors import NoMeter

PMIC = """\
 3V7_WL_SW_A current(0)=0.08880480A
  VDD_CORE_A current(7)=2.57320000A
 3V7_WL_SW_V volt(8)=3.70218000V
  VDD_CORE_V volt(15)=0.88214200V
     EXT5V_V volt(24)=5.14698000V
"""


def test_joules_are_the_area_under_watts():
    watts, moments = iter([2.0, 4.0, 4.0]), iter([0.0, 1.0, 3.0])
    read = meters.integrated(lambda: next(watts), lambda: next(moments))
    assert [read(), read(), read()] == [0.0, 3.0, 11.0]


def test_a_watched_meter_is_read_between_begin_and_end():
    power = itertools.cycle([1.0, 3.0])
    meter = Meter(
        name="x", method="test", rate_hz=200.0, read_joules=meters.integrated(lambda: next(power))
    )
    start = time.monotonic()
    with metered.watched(meter) as used:
        time.sleep(0.2)
        joules, seconds = used()
    assert 0.2 <= seconds <= time.monotonic() - start
    assert 0.5 * 2 * 0.2 < joules < 2 * 2 * seconds


def test_a_meter_that_fails_while_watched_is_told():
    readings = iter([0.0])

    def read() -> float:
        for value in readings:
            return value
        raise NoMeter("unplugged")

    meter = Meter(name="x", method="test", rate_hz=500.0, read_joules=read)
    with metered.watched(meter) as used:
        time.sleep(0.1)
        with pytest.raises(NoMeter, match="unplugged"):
            used()


def test_rails_of_a_pi_5_are_summed_and_lone_voltages_left_out():
    assert meters.pmic_watts(PMIC) == pytest.approx(0.0888048 * 3.70218 + 2.5732 * 0.882142)
    with pytest.raises(NoMeter, match="no rail"):
        meters.pmic_watts("error=1 error_msg='Command not registered'")
    meter = meters.pmic(lambda command: PMIC if command[0] == "vcgencmd" else "")
    assert meter.read_joules() == 0
    assert meter.read_joules() > 0


def chip(sysfs: Path, name: str, **files: str) -> Path:
    folder = sysfs / "class" / "hwmon" / f"hwmon{len(list(sysfs.rglob('name')))}"
    folder.mkdir(parents=True)
    for file, text in {"name": name, **files}.items():
        (folder / file).write_text(f"{text}\n")
    return folder


def test_ina_monitors_are_read_by_rail(tmp_path):
    chip(tmp_path, "ina3221", in1_label="VDD_IN", in1_input="5000", curr1_input="1200")
    chip(tmp_path, "ina226", power1_input="7500000")
    chip(tmp_path, "coretemp", temp1_input="40000")
    found = meters.hwmon(tmp_path)
    assert [m.name for m in found] == ["ina3221 VDD_IN", "ina226 power1"]
    for meter, watts in zip(found, (6.0, 7.5), strict=True):
        begin = meter.read_joules(), time.monotonic()
        time.sleep(0.05)
        passed = meter.read_joules() - begin[0]
        assert passed == pytest.approx(watts * (time.monotonic() - begin[1]), rel=0.2)


def gauge(sysfs: Path, **files: str) -> Path:
    folder = sysfs / "class" / "power_supply" / "BAT0"
    folder.mkdir(parents=True)
    for file, text in {"type": "Battery", "status": "Discharging", **files}.items():
        (folder / file).write_text(f"{text}\n")
    return folder


def test_a_battery_counts_only_while_it_empties(tmp_path):
    folder = gauge(tmp_path, current_now="-1500000", voltage_now="7600000")
    (meter,) = meters.battery(tmp_path)
    meter.read_joules()
    start = time.monotonic()
    time.sleep(0.05)
    assert meter.read_joules() == pytest.approx(11.4 * (time.monotonic() - start), rel=0.2)
    (folder / "status").write_text("Charging\n")
    with pytest.raises(NoMeter, match="unplug"):
        meter.read_joules()


def test_a_phone_tells_its_watts_over_adb_in_either_unit():
    for current in ("-850000", "-850"):
        asked = []

        def tool(command, current=current, asked=asked):
            asked.append(command)
            return f"Discharging\n{current}\n4000000\n"

        meter = meters.android("abc", tool)
        meter.read_joules()
        start = time.monotonic()
        time.sleep(0.05)
        assert meter.read_joules() == pytest.approx(3.4 * (time.monotonic() - start), rel=0.2)
        assert asked[0][:3] == ["adb", "-s", "abc"]
    with pytest.raises(NoMeter, match="charging"):
        meters.android(tool=lambda _: "Charging\n1\n2\n").read_joules()
    with pytest.raises(NoMeter, match="no status"):
        meters.android(tool=lambda _: "cat: Permission denied").read_joules()


def test_powermetrics_is_read_in_milliwatts():
    meter = meters.powermetrics(lambda _: "E-Cluster Power: 20 mW\nCPU Power: 2500 mW\n")
    meter.read_joules()
    start = time.monotonic()
    time.sleep(0.05)
    assert meter.read_joules() == pytest.approx(2.5 * (time.monotonic() - start), rel=0.2)
    with pytest.raises(NoMeter, match="no CPU Power"):
        meters.powermetrics(lambda _: "").read_joules()


def test_a_tool_that_is_missing_or_fails_is_one_line():
    with pytest.raises(NoMeter, match="not installed"):
        meters.run(["no-such-tool-at-all"])
    with pytest.raises(NoMeter, match="failed: 3") as failed:
        meters.run(["sh", "-c", "exit 3"])
    assert "\n" not in str(failed.value)


def test_what_is_present_is_found_without_reading_it(tmp_path):
    gauge(tmp_path, power_now="9000000")
    found = meters.present(tmp_path, lambda name: "/bin/x" if name == "vcgencmd" else None)
    assert [m.method for m in found] == ["battery", "pmic"]
    assert meters.present(tmp_path / "none", lambda _: None) == ()
