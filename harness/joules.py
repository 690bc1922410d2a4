"""A setting and its seconds -> joules; and how far they are from published watts and joules.

Published power of language models is rare, and much of it is a peak read at the wall: what is
compared says where its numbers come from and how many there are.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness import energy, observations, roofline, scores, watts
from harness.errors import BadInput
from harness.records import Failed, Projected
from harness.scores import Left
from harness.settings import Setting, Work
from targets.profile import Device

BOARDS = roofline.FOLDER / "board_power.csv"
FLOATS = ("f32", "f16")  # families of formats that are multiplied as floats
AT_WALL = ("wall", "board")  # of the whole machine; a processor's own count and a rail are not


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Published against modelled: logarithms of the ratio, by what is compared.

    held: whether the interval of the model holds the published figure
    """

    what: str
    devices: tuple[str, ...]  # of each figure
    ratios: tuple[float, ...]  # log(modelled / published)
    held: tuple[bool, ...]

    @property
    def error(self) -> float:
        """Median of |modelled/published - 1|."""
        return float(np.median([abs(math.expm1(ratio)) for ratio in self.ratios]))

    @property
    def bias(self) -> float:
        return float(np.median(self.ratios))


def of_setting(setting: Setting, seconds: tuple[float, float, float]) -> Projected | Failed:
    """Joules of a step that takes `seconds` (likely, least, most).

    Fails when the profile states no idle and load power.
    """
    traffic, operations = moved(setting.work, setting.device)
    return energy.of_run(
        seconds,
        setting.device,
        min(setting.threads, setting.device.cores),
        traffic_joules=traffic,
        operations_joules=operations,
    )


def moved(work: Work, device: Device) -> tuple[float, float]:
    """Joules of a step for what it moves and for what it computes, whatever time it takes."""
    passes = max(1, math.ceil(work.tokens / roofline.PASS)) if work.phase == "prefill" else 1
    operations = sum(
        2 * count * watts.JOULES_PER_OPERATION["float32" if _floats(name) else "int8"]
        for name, count in work.weights.items()
    )
    return (
        passes * watts.memory_joules(work.streamed_bytes, device),
        operations + 2 * work.others * watts.JOULES_PER_OPERATION["float32"],
    )


def compare(left: Sequence[Left], devices: Mapping[str, Device]) -> tuple[Compared, ...]:
    """The power of published runs, their joules by projected speed, and boards under full load.

    left: leave-one-out results of the published rows, which state power where they do
    """
    power = _published(left)
    wall = [x for x in power if x.source in AT_WALL]
    rest = [x for x in power if x.source == "processor"]
    return (
        _compared("watts at the wall, at the published speed", wall, speed=False),
        _compared("joules per token at the wall, speed projected too", wall, speed=True),
        _compared("joules per token that a processor counts itself", rest, speed=True),
        _boards(devices),
    )


def lines(found: Sequence[Compared]) -> list[str]:
    """The comparison as lines of Markdown."""
    return [
        "| what | figures | devices | error | bias | inside interval |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {c.what} | {len(c.ratios)} | {len(set(c.devices))} | {c.error:.0%} "
            f"| {c.bias:+.2f} | {sum(c.held)} of {len(c.held)} |"
            for c in found
            if c.ratios
        ),
    ]


# ---- what is compared ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Power:
    """A published row with power: joules of a step, and the factor of its interval of speed."""

    left: Left
    joules: float
    source: str
    half: float


def _published(left: Sequence[Left]) -> list[_Power]:
    with observations.PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for phase in scores.PHASES:
        here = [x for x in left if x.observation.phase == phase]
        for x, half in zip(here, scores.halves(left, phase).tolist(), strict=True):
            row, seconds = rows[x.observation.row], x.observation.seconds
            if row["energy_j_per_token"]:
                joules = float(row["energy_j_per_token"]) * x.observation.setting.work.tokens
            elif row["power_w"]:
                joules = float(row["power_w"]) * seconds
            else:
                continue
            found.append(_Power(x, joules, row["power_from"], half))
    return found


def _compared(what: str, power: Sequence[_Power], *, speed: bool) -> Compared:
    """By the published seconds, or by the projected ones with their interval."""
    devices, ratios, held = [], [], []
    for x in power:
        taken = x.left.seconds if speed else x.left.observation.seconds
        spread = math.exp(x.half) if speed else 1.0
        setting = x.left.observation.setting
        joules = of_setting(setting, (taken, taken / spread, taken * spread))
        if isinstance(joules, Failed):
            continue
        devices.append(setting.device.name)
        ratios.append(math.log(joules.value / x.joules))
        held.append(joules.low <= x.joules <= joules.high)
    return Compared(what=what, devices=tuple(devices), ratios=tuple(ratios), held=tuple(held))


def _boards(devices: Mapping[str, Device]) -> Compared:
    """The load power of profiles against the peak of another load on such boards."""
    try:
        with BOARDS.open(encoding="utf-8", newline="") as file:
            rows = [(row["device_id"], float(row["watts"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{BOARDS} cannot be used: {error!r}") from None
    known = [
        (name, math.log(load.value / seen))
        for name, seen in rows
        if name in devices and (load := devices[name].load_watts) is not None
    ]
    return Compared(
        what="watts of all cores at the wall, against the peak of Geekbench",
        devices=tuple(name for name, _ in known),
        ratios=tuple(ratio for _, ratio in known),
        held=tuple(abs(ratio) <= energy.DOUBT for _, ratio in known),
    )


def _floats(form: str) -> bool:
    return roofline.family("format", form) in FLOATS
