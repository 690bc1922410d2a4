"""Kernel + CPU -> the loops that such a core would run, and what is known of their speed.

Nothing here is run or measured: instructions are read from the assembly that LLVM makes, cycles
come from LLVM's model of the core, and the bandwidth beside them from device profiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding as llvm

from harness import plugins
from harness.asm import count, mca
from harness.asm.cores import Core, known, pick
from harness.asm.emit import assemble, emit
from harness.asm.loops import Loop, innermost
from targets import profile

__all__ = ["Feed", "Loop", "Part", "Report", "asm", "examine", "hot", "limits"]

DEEPER = 4  # how much more often a loop runs than the one around it, for ranking alone
HOT = 1 / 8  # a loop is hot when it reads this share of what the hottest one does


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One innermost loop.

    stream_bytes: read an iteration through the address registers that read most: the weights of
    a product; other_bytes: through all others; spilled_bytes: read back from the stack
    """

    loop: Loop
    hot: bool
    kinds: Mapping[str, int]
    mnemonics: Mapping[str, int]
    stream_bytes: int
    other_bytes: int
    spilled_bytes: int
    cycles: mca.Cycles | None  # of hot loops only

    @property
    def bytes_per_cycle(self) -> float | None:
        """Bytes of the largest stream that the core could take, were memory no limit."""
        found = self.cycles.cycles if self.cycles else None
        return self.stream_bytes / found if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What memory gives one thread of a device's fastest core, in bytes a cycle of its clock."""

    device: str
    bytes_per_cycle: float
    read_bandwidth: float
    clock_hz: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    kernel: str
    core: Core
    compiler: str
    parts: tuple[Part, ...]  # hottest first
    feeds: tuple[Feed, ...]  # least first
    limits: tuple[str, ...]
    assembly: str


def asm(kernel: str, cpu: str, devices: Path | None = None) -> Report:
    """Raises UnknownName for a kernel or CPU that is not known."""
    core = pick(cpu)
    plugins.pick(plugins.kernel_specs(), kernel, "kernel")
    return examine(kernel, core, assemble(emit([kernel], core.flags)[kernel], core), devices)


def examine(kernel: str, core: Core, assembly: str, devices: Path | None = None) -> Report:
    """The report on assembly that is there already."""
    found = innermost(assembly)
    chosen = hot(found)
    parts = [_part(loop, loop in chosen, core) for loop in sorted(found, key=heat, reverse=True)]
    return Report(
        kernel=kernel,
        core=core,
        compiler=f"LLVM {'.'.join(map(str, llvm.llvm_version_info))}",
        parts=tuple(parts),
        feeds=feeds(core, devices),
        limits=limits(core),
        assembly=assembly,
    )


def heat(loop: Loop) -> float:
    """Bytes that a loop reads, weighted by how deep it is."""
    return float(sum(count.data(loop.lines)) * DEEPER**loop.depth)


def hot(found: Sequence[Loop]) -> list[Loop]:
    """The loops where the work is, hottest first; what is left are tails and short preparations."""
    ranked = sorted(found, key=heat, reverse=True)
    return [loop for loop in ranked if heat(loop) >= HOT * heat(ranked[0])]


def _part(loop: Loop, is_hot: bool, core: Core) -> Part:
    first, *others = count.data(loop.lines) or [0]
    return Part(
        loop=loop,
        hot=is_hot,
        kinds=count.kinds(loop.lines),
        mnemonics=count.mnemonics(loop.lines),
        stream_bytes=first,
        other_bytes=sum(others),
        spilled_bytes=count.streams(loop.lines).get("stack", 0),
        cycles=mca.cycles(loop, core) if is_hot else None,
    )


def feeds(core: Core, devices: Path | None = None) -> tuple[Feed, ...]:
    """Of the devices whose fastest cores these are, and whose memory was read by one thread."""
    found = []
    for device in profile.load_all(devices):
        cluster, read = device.clusters[0], device.read_bandwidth.get(1)
        if cluster.core == core.profile and read is not None:
            clock = cluster.clock_hz.value
            found.append(
                Feed(
                    device=device.name,
                    bytes_per_cycle=read.value / clock,
                    read_bandwidth=read.value,
                    clock_hz=clock,
                )
            )
    return tuple(sorted(found, key=lambda feed: feed.bytes_per_cycle))


def limits(core: Core) -> tuple[str, ...]:
    """What these figures do not know."""
    same = [c.name for c in known().values() if c.model == core.model and c.name != core.name]
    shared = f", as it does {', '.join(same)}" if same else ""
    return (
        f"llvm-mca times {core.name} by {core.model}{shared}",
        "it has no caches and no memory: every read is a hit, and nothing waits for a store",
        "a loop of several blocks is timed as if each of them ran in each iteration",
        "bandwidth is of one thread on the fastest core; more threads share it",
    )
