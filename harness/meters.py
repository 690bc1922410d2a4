"""Instruments that read watts (Pi 5 PMIC, INA hwmon, batteries, adb, powermetrics) -> meters.

Each gives watts at a moment; joules are their integral over the readings, so a run must be
watched (metered.py). RAPL, which counts joules itself, is in energy.py. What each covers is in
its method's name.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from harness.cores import read as text_of
from harness.energy import Meter
from harness.errors import NoMeter

PMIC_HZ = 10.0  # a reading takes about 15 ms on a Pi 5 (a judgement: leave it most of the time)
INA_HZ = 7.0  # INA3221 with the driver's default of 64 averages of 1.1 ms on three channels
BATTERY_HZ = 1.0  # gauges renew their number about once a second, some every 10 s
POWERMETRICS_HZ = 1.0
WAIT_SECONDS = 5.0  # for a tool to answer
RAIL = re.compile(r"(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([\d.]+)([AV])")
CPU_POWER = re.compile(r"^CPU Power:\s*([\d.]+)\s*mW", re.MULTILINE)
Run = Callable[[Sequence[str]], str]


def integrated(
    watts: Callable[[], float], clock: Callable[[], float] = time.monotonic
) -> Callable[[], float]:
    """Joules since the first reading, by the trapezoid between readings."""
    last: tuple[float, float] | None = None
    total = 0.0

    def read() -> float:
        nonlocal last, total
        power, now = watts(), clock()
        if last is not None:
            then, before = last
            total += (now - then) * (power + before) / 2
        last = (now, power)
        return total

    return read


def run(command: Sequence[str]) -> str:
    """What a tool prints. Raises NoMeter in one line."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, timeout=WAIT_SECONDS, check=True
        )
    except FileNotFoundError:
        raise NoMeter(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise NoMeter(f"{command[0]} gave no answer in {WAIT_SECONDS:g} s") from None
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout or "").split())[:200]
        raise NoMeter(f"{' '.join(command)} failed: {said or error.returncode}") from None
    return done.stdout


def pmic(tool: Run = run) -> Meter:
    """The rails behind a Raspberry Pi 5's power chip; its own losses and USB are not in it."""

    def watts() -> float:
        return pmic_watts(tool(["vcgencmd", "pmic_read_adc"]))

    return Meter(name="PMIC rails", method="pmic", rate_hz=PMIC_HZ, read_joules=integrated(watts))


def pmic_watts(text: str) -> float:
    """Sum over rails of current times voltage, of what `vcgencmd pmic_read_adc` prints."""
    rails: dict[str, dict[str, float]] = {}
    for name, kind, value, _ in RAIL.findall(text):
        rails.setdefault(name, {})[kind] = float(value)
    powers = [rail["A"] * rail["V"] for rail in rails.values() if len(rail) == 2]
    if not powers:
        raise NoMeter("vcgencmd pmic_read_adc names no rail with current and voltage")
    return sum(powers)


def hwmon(sysfs: Path = Path("/sys")) -> tuple[Meter, ...]:
    """INA2xx and INA3221 monitors: one for each rail that says power, or current and voltage."""
    found = []
    for folder in sorted((sysfs / "class" / "hwmon").glob("hwmon*")):
        chip = text_of(folder / "name")
        if not chip.startswith("ina"):
            continue
        for label, watts in _rails(folder):
            found.append(
                Meter(
                    name=f"{chip} {label}", method="ina", rate_hz=INA_HZ,
                    read_joules=integrated(watts),
                )
            )  # fmt: skip
    return tuple(found)


def _rails(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    for path in sorted(folder.glob("power*_input")):
        number = path.name.removeprefix("power").removesuffix("_input")
        label = text_of(folder / f"power{number}_label") or f"power{number}"
        yield label, partial(_micro, path)
    if any(folder.glob("power*_input")):
        return
    for path in sorted(folder.glob("curr*_input")):
        number = path.name.removeprefix("curr").removesuffix("_input")
        volts = folder / f"in{number}_input"
        if volts.exists():
            label = text_of(folder / f"in{number}_label") or f"channel {number}"
            yield label, partial(_product, path, volts)


def _micro(path: Path) -> float:
    """Watts of a file of microwatts."""
    return _integer(path) / 1e6


def _product(milliamperes: Path, millivolts: Path) -> float:
    return _integer(milliamperes) * _integer(millivolts) / 1e6


def battery(sysfs: Path = Path("/sys")) -> tuple[Meter, ...]:
    """The gauges of batteries: the whole machine, screen included, and only while unplugged."""
    found = []
    for folder in sorted((sysfs / "class" / "power_supply").glob("*")):
        if text_of(folder / "type") != "Battery":
            continue
        if not ((folder / "power_now").exists() or (folder / "current_now").exists()):
            continue

        def watts(folder: Path = folder) -> float:
            state = text_of(folder / "status")
            if state != "Discharging":
                raise NoMeter(f"{folder.name} is {state.lower() or 'silent'}: unplug the machine")
            if (folder / "power_now").exists():
                return abs(_integer(folder / "power_now")) / 1e6
            return abs(_integer(folder / "current_now")) * _integer(folder / "voltage_now") / 1e12

        found.append(
            Meter(
                name=folder.name, method="battery", rate_hz=BATTERY_HZ,
                read_joules=integrated(watts),
            )
        )  # fmt: skip
    return tuple(found)


def android(serial: str | None = None, tool: Run = run) -> Meter:
    """The battery gauge of a phone over adb: the whole phone, and only while it is not charged.

    Over USB a phone charges: connect adb by Wi-Fi, or `dumpsys battery unplug` does not suffice.
    """
    adb = ["adb", *(["-s", serial] if serial else []), "shell", "cat"]
    place = "/sys/class/power_supply/battery"

    def watts() -> float:
        text = tool(
            [*adb, *(f"{place}/{name}" for name in ("status", "current_now", "voltage_now"))]
        )
        lines = text.split()
        try:
            state, current, volts = lines[0], int(lines[-2]), int(lines[-1])
        except (IndexError, ValueError):
            raise NoMeter(f"adb gave no status, current and voltage: {text[:100]!r}") from None
        if state == "Charging":
            raise NoMeter("the phone is charging; connect adb by Wi-Fi and unplug it")
        # most kernels say microamperes, some milliamperes: no phone draws less than 10 mA awake
        amperes = abs(current) / (1e6 if abs(current) > 10_000 else 1e3)
        return amperes * volts / 1e6

    return Meter(
        name="phone battery", method="adb", rate_hz=BATTERY_HZ, read_joules=integrated(watts)
    )


def powermetrics(tool: Run = run) -> Meter:
    """Apple's own estimate for the CPU of a Mac; needs root."""
    command = ["sudo", "-n", "powermetrics", "--samplers", "cpu_power", "-n", "1", "-i", "200"]

    def watts() -> float:
        found = CPU_POWER.search(tool(command))
        if found is None:
            raise NoMeter("powermetrics names no CPU Power")
        return float(found[1]) / 1e3

    return Meter(
        name="CPU", method="powermetrics", rate_hz=POWERMETRICS_HZ, read_joules=integrated(watts)
    )


def present(
    sysfs: Path = Path("/sys"), which: Callable[[str], str | None] = shutil.which
) -> tuple[Meter, ...]:
    """The instruments that this machine seems to have, whether or not they may be read."""
    found = [*hwmon(sysfs), *battery(sysfs)]
    if which("vcgencmd"):
        found.append(pmic())
    if which("powermetrics"):
        found.append(powermetrics())
    return tuple(found)


def _integer(path: Path) -> int:
    text = text_of(path)
    try:
        return int(text)
    except ValueError:
        raise NoMeter(f"{path} gives no whole number: {text!r}") from None
