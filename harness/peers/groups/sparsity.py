"""Weights of which most are zero against the dense product of the same format, from memory.

Zeros are where the smaller half, seven tenths, ... of random weights were. A format breaks even at
the share of zeros from which on skipping them is as fast as multiplying by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harness import limits, plugins, stats
from harness.engines.numba import linear
from harness.errors import Mismatch
from harness.formats.sparse50 import BASES, Base, member
from harness.peers.frame import Cell, Group, Setup
from harness.peers.rounds import Side, ratios, rounds, timed
from harness.records import Array, Format

PERCENTS = (10, 30, 50, 70, 80, 90, 95)
SIZE = 4096  # rows and columns
ALLOWED = 0.25  # of a product against float64, by norm: what rounding to int4 costs, with room


def cell_name(base: Base, percent: int, threads: int) -> str:
    return f"sparse {base.name}, {percent} % zeros, {threads}t"


def even_name(base: Base, threads: int) -> str:
    return f"sparse {base.name}, zeros that break even, {threads}t"


def plan(setup: Setup) -> Mapping[str, str]:
    return {
        name: ""
        for base in BASES
        for threads in setup.threads
        for name in (*(cell_name(base, p, threads) for p in PERCENTS), even_name(base, threads))
    }


def cells(setup: Setup) -> Iterator[Cell]:
    size = 256 if setup.quick else SIZE
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal((size, size)) * size**-0.5).astype(np.float32)
    for base in BASES:
        for threads in setup.threads:
            setup.say(f"{base.name}, {threads} threads")
            yield from _cells(setup, base, weights, threads)


def _cells(setup: Setup, base: Base, weights: Array, threads: int) -> Iterator[Cell]:
    opened: list[linear.Linears] = []
    sides: dict[str, Side] = {}
    try:
        forms: dict[str, str | Format] = {"dense": base.name}
        forms |= {str(percent): member(base, percent) for percent in PERCENTS}
        for name, form in forms.items():
            opened.append(_opened(setup, form, weights, threads))
            sides[name] = _side(opened[-1])
        samples = rounds(sides, setup.rounds)
    finally:
        for one in opened:
            linear.close(one)
    for percent in PERCENTS:
        ratio, low, high = ratios(samples["dense"], samples[str(percent)])
        yield Cell(
            cell=cell_name(base, percent, threads), ours=stats.median(samples[str(percent)]),
            theirs=stats.median(samples["dense"]), ratio=ratio, low=low, high=high,
            note=f"times faster than dense {base.name}",
        )  # fmt: skip
    found = [
        breaks_even([(p / 100, samples[str(p)][i] / samples["dense"][i]) for p in PERCENTS])
        for i in range(setup.rounds)
    ]
    low, high, _ = stats.median_interval(found)
    never = stats.median(found) >= 1.0
    yield Cell(
        cell=even_name(base, threads), ours=stats.median(found), unit="1",
        ratio=stats.median(found), low=low, high=high,
        note="never, up to 95 % zeros" if never else "from this share of zeros on it is faster",
    )  # fmt: skip


def _opened(setup: Setup, form: str | Format, weights: Array, threads: int) -> linear.Linears:
    """Copies that no cache holds, multiplied by a random vector. Raises Mismatch."""
    spec = _spec(form)
    stream = spec.layout_bytes(*weights.shape)
    count = 1 if setup.quick else -(-limits.DRAM_BYTES // stream)
    made = linear.open_linears(form, weights, count, threads, setup.cpus[:threads])
    made.x[:] = np.random.default_rng(1).standard_normal(made.x.size)
    want = spec.unpack(spec.pack(weights), weights.shape).astype(np.float64) @ made.x
    off = float(np.linalg.norm(made.lap() - want) / np.linalg.norm(want))
    if off > ALLOWED:
        raise Mismatch(f"the product of {spec.name} is off by {off:.1e}, allowed {ALLOWED:.0e}")
    return made


def _side(made: linear.Linears) -> Side:
    """Seconds of one product, in a lap over all copies."""
    lap = timed(made.lap)
    return lambda: lap() / made.count


def _spec(form: str | Format) -> Format:
    return plugins.formats()[form] if isinstance(form, str) else form


def breaks_even(line: Sequence[tuple[float, float]]) -> float:
    """Where points (zeros, time over dense) fall below 1 for good, between the two around it.

    The first point's zeros where all are below, 1 where the last one is not.
    """
    slow = [i for i, (_, y) in enumerate(line) if y > 1.0]
    if not slow:
        return line[0][0]
    if slow[-1] == len(line) - 1:
        return 1.0
    (x0, y0), (x1, y1) = line[slow[-1]], line[slow[-1] + 1]
    return x0 + (x1 - x0) * (y0 - 1.0) / (y0 - y1)


def table(found: Sequence[Cell]) -> str:
    """By format and threads: how many times faster than dense, and what breaks even."""
    by_name = {cell.cell: cell for cell in found}
    threads = sorted({int(name.rsplit(", ", 1)[1].removesuffix("t")) for name in by_name})
    head = " | ".join(f"{percent} % zeros" for percent in PERCENTS)
    lines = [f"| format | threads | {head} | breaks even at |",
             "|---|--:|" + "--:|" * (len(PERCENTS) + 1)]  # fmt: skip
    for base in BASES:
        for count in threads:
            names = [cell_name(base, percent, count) for percent in PERCENTS]
            values = [by_name.get(name) for name in names]
            said = [f"{v.ratio:.2f}x" if v and v.ratio else "-" for v in values]
            even = by_name.get(even_name(base, count))
            said.append(_percent(even.ratio) if even and even.ratio else "-")
            lines.append(f"| {base.name} | {count} | {' | '.join(said)} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    if share >= 1.0:
        return f"above {PERCENTS[-1]} %"
    least = "at most " if share <= PERCENTS[0] / 100 else ""
    return f"{least}{100 * share:.0f} %"


SPEC = Group(
    name="sparsity",
    summary="Unstructured zeros, times faster than the dense product of the same format",
    plan=plan,
    cells=cells,
    table=table,
    peers=("numba",),
)
