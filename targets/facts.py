"""The nouns of a device profile: facts with kind and source, clusters of cores, the device.

All numbers are SI without prefixes. One multiply-add is 2 operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["datasheet", "measured", "derived", "estimated"]
Category: TypeAlias = Literal[
    "mcu", "sbc", "phone", "jetson", "laptop", "minipc", "desktop", "server"
]

Dram: TypeAlias = Literal[
    "lpddr2", "lpddr4", "lpddr4x", "lpddr5", "lpddr5x", "ddr4", "ddr5", "psram"
]


class ProfileError(ValueError):
    """A device profile cannot be used; the message names file, key, finding and remedy."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One number about a device.

    datasheet: its maker says so; measured: an instrument read it; derived: follows from other
    facts by the rule in `source`; estimated: read nowhere, a judgement
    """

    value: float
    kind: Kind
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Equal cores that share a clock."""

    core: str  # "cortex-a76", "oryon", "zen4": what project.py knows about
    isa: tuple[str, ...]  # "neon", "dotprod", "i8mm", "avx2", "avx512-vnni", ...
    count: Fact
    clock_hz: Fact  # under load of all cores of the cluster
    float32_per_cycle: Fact  # peak of one core [op/cycle]
    int8_per_cycle: Fact  # peak of one core, vector dot products, no matrix unit [op/cycle]
    cycle_joules: Fact | None = None  # of a busy cycle of one core; comparable within a device
    boost_hz: Fact | None = None  # while one core of the cluster is busy and no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A machine on which candidates run, in the variant its summary names.

    read_bandwidth: what so many threads read from memory together [B/s], fastest cores first
    caches: "l1d" of one core; "l2", "l3", "system": total over the chip [B]
    memory_bytes: what one program may use of the memory
    dram: kind of memory, "lpddr5", or "" where it is not known
    sustained_share: of the speed of the first minute, what is left after minutes of full load
    recognise: shell patterns, one of which fits such a machine's board, SoC or CPU model
    """

    name: str
    summary: str
    category: Category
    soc: str
    year: Fact
    clusters: tuple[Cluster, ...]  # fastest first
    memory_bytes: Fact
    bandwidth: Fact  # of the memory bus, theoretical [B/s]
    read_bandwidth: Mapping[int, Fact] = field(default_factory=dict)
    caches: Mapping[str, Fact] = field(default_factory=dict)
    idle_watts: Fact | None = None  # of the whole machine, at the wall where measured
    load_watts: Fact | None = None  # the same with every core busy
    price_dollars: Fact | None = None
    sustained_share: Fact | None = None
    dram: Dram | Literal[""] = ""
    recognise: tuple[str, ...] = ()

    @property
    def cores(self) -> int:
        return sum(int(c.count.value) for c in self.clusters)
