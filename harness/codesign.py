"""Contenders + machines that are and are not -> the co-design map: which is best within a budget.

Machines of a map are one device with its bus and its clocks scaled (scaling.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import contenders, joules, reported, scaling, watts
from harness.arrays import Floats, Ints
from harness.contenders import Contender
from harness.errors import BadInput
from harness.reported import Line
from harness.roofline import Fit
from harness.settings import Setting
from targets.profile import Device

SIDE = 80  # machines along each side of a map
BANDWIDTHS = (2e9, 4e11)  # reached [B/s], the ends of a map
COMPUTES = (2e9, 2e12)  # reached [multiply-adds/s]
KEY = (  # what is drawn, in words
    "A colour is a model, the lighter the fewer its bits. Named is the least of those whose "
    "quality cannot be told from the best that holds: more bits buy nothing that was measured. "
    "Hatched: only formats in which nobody scored these models would hold. Dots: devices with "
    "that much memory, but not that of the suite's next panel; those beyond the "
    "axes are in the table."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a decode at this depth must hold; no limit on energy where it is None."""

    tokens_per_second: float = 10.0
    joules_per_token: float | None = None
    depth: int = 2048

    def __str__(self) -> str:
        energy = f", at most {self.joules_per_token:g} J a token" if self.joules_per_token else ""
        return f"{self.tokens_per_second:g} tokens/s or more{energy}, behind {self.depth:,} tokens"

    def __post_init__(self) -> None:
        for value in (self.tokens_per_second, self.joules_per_token):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise BadInput(f"a budget must be a number above 0, got {value}")
        if not 0 <= self.depth <= 10_000_000:
            raise BadInput(f"a depth must be from 0 to 10 million tokens, got {self.depth}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Map:
    """For machines of so much memory, which contender to take: chosen (compute,bandwidth)."""

    suite: str
    memory_bytes: float
    field: tuple[Contender, ...]
    bandwidth: Floats
    compute: Floats
    chosen: Ints


def maps(
    suite: str, memories: Sequence[float], like: Device, budget: Budget, fit: Fit
) -> list[Map]:
    """One map for each size of memory that changes the answer, least first; none where it is that
    no contender can be taken anywhere."""
    if min(memories, default=0) <= 0:
        raise BadInput("name at least one size of memory, each above 0")
    field = contenders.suites()[suite]
    lines = lines_of(field, like, budget)
    settings = [replace(line.setting, threads=like.cores) for line in lines]
    bandwidth, compute = (np.geomspace(*ends, SIDE) for ends in (BANDWIDTHS, COMPUTES))
    bus, clock = scaling.scales(like, bandwidth, compute, fit)
    each = np.repeat(np.arange(SIDE), SIDE), np.tile(np.arange(SIDE), SIDE)
    total = scaling.over(settings, bus[each[1]], clock[each[0]], fit).total
    holds = total <= 1 / budget.tokens_per_second
    if budget.joules_per_token is not None:
        holds &= _joules(settings, total, clock[each[0]]) <= budget.joules_per_token
    stored = np.array([line.stored_bytes for line in lines])
    found: list[Map] = []
    for memory in sorted(memories):
        chosen, _ = contenders.choose(holds & (stored <= memory), field, sizes(lines))
        chosen = chosen.reshape(SIDE, SIDE)
        if chosen.max() < 0 or (found and np.array_equal(found[-1].chosen, chosen)):
            continue
        found.append(
            Map(
                suite=suite, memory_bytes=memory, field=field, bandwidth=bandwidth,
                compute=compute, chosen=chosen,
            )
        )  # fmt: skip
    return found


def within(value: float, axis: Floats) -> bool:
    return bool(axis[0] <= value <= axis[-1])


def lines_of(field: Sequence[Contender], device: Device, budget: Budget) -> list[Line]:
    """What each contender asks of a device, with one thread."""
    return [reported.read(one.asked(budget.depth), device) for one in field]


def sizes(lines: Sequence[Line]) -> Floats:
    """Bytes that a token of each reads."""
    return np.array([line.setting.work.streamed_bytes for line in lines])


def _joules(settings: Sequence[Setting], seconds: Floats, clock: Floats) -> Floats:
    """Of each load on each scaled machine, whose cores draw power as they compute: (m,w)."""
    device, threads = settings[0].device, settings[0].threads
    if device.idle_watts is None or device.load_watts is None:
        raise BadInput(f"{device.name} states no idle_watts and load_watts: no energy budget")
    idle, load = device.idle_watts.value, device.load_watts.value
    active = (load - idle) * watts.active_share(device, threads)
    moved = np.array([sum(joules.moved(one.work, device)) for one in settings])
    found: Floats = seconds * (idle + active * clock)[:, None] + moved
    return found
