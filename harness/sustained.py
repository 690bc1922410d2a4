"""Device -> the share of a projected (burst) speed that is left after minutes of full load.

Clocks in profiles are those under load of all cores, for minutes where they were measured so. A
phone has no room for its heat, and few say what becomes of its speed: where no fact says it, the
share is a range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.records import Projected, Row
from targets.profile import Device

# A Snapdragon 8 Gen 3 fell from 12.4 tokens/s to 9.1 after five minutes and 3.8 after thirty:
# https://mvpfactory.io/blog/thermal-throttling-and-sustained-on-device-llm-inference-on-android-cpu
PHONE = 0.31
# An i7-1185G7 of the 15 W class falls from 2.4 to 1.8 GHz after a minute:
# https://github.com/intel/thermal_daemon/issues/341
LAPTOP = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Between what shares of a burst the sustained speed lies, and why."""

    least: float
    most: float
    why: str

    @property
    def lasts(self) -> bool:
        return self.least == 1


def share(device: Device) -> Share:
    """By the fact of the profile, else by how such devices are cooled."""
    stated = device.sustained_share
    if stated is not None and stated.kind == "measured":
        return Share(least=stated.value, most=stated.value, why=stated.source)
    if stated is not None:  # of its clocks: what waits for memory loses less
        return Share(least=stated.value, most=1, why=stated.source)
    if device.category == "phone":
        why = "no fact for this device; phones fell to 0.51 in three and 0.31 in thirty minutes"
        return Share(least=PHONE, most=1, why=why)
    if device.category == "laptop" and device.clusters[0].clock_hz.kind != "measured":
        why = "no fact for this device; one thin laptop fell to three quarters in a minute"
        return Share(least=LAPTOP, most=1, why=why)
    return Share(least=1, most=1, why="its clocks are those under load of all cores")


def note(device: Device) -> str:
    """For a projection of a burst that does not last, or "" where it does."""
    found = share(device)
    return "" if found.lasts else f"burst: {_range(found)} of it after minutes ({found.why})"


def row(burst: Row, device: Device) -> Row:
    """The same run once the device is warm; a slower clock saves about what its time costs."""
    if not isinstance(burst.seconds, Projected):
        return burst
    return replace(burst, seconds=seconds(burst.seconds, device))


def seconds(burst: Projected, device: Device) -> Projected:
    """Of the same run once the device is warm; the middle of a range is its geometric mean."""
    found = share(device)
    middle = math.sqrt(found.least * found.most)
    why = "sustained" if found.lasts else f"sustained: {_range(found)} of the burst ({found.why})"
    return replace(
        burst,
        value=burst.value / middle,
        low=burst.low / found.most,
        high=burst.high / found.least,
        flags=(*(flag for flag in burst.flags if flag != note(device)), why),
    )


def _range(found: Share) -> str:
    alike = found.least == found.most
    return f"{found.least:.2g}" if alike else f"{found.least:.2g} to {found.most:.2g}"
