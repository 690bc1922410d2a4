"""A selective ffn against the dense one of its size and format, by group size and active fraction.

Layers are as large as those of a model of a billion, and so many that no cache holds a tenth of
them. Each turn has an input of its own in every layer, so choices are fresh; the selector is part
of what is timed, and its bias sets how many groups run. Ideal is the share of the groups that ran
in that turn times the dense ffn's time in the same round. A group size breaks even at the fraction
at which its ffn is as slow as the dense one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from harness import limits, stats
from harness.engines.numba import feed, random
from harness.peers.frame import Cell, Group, Setup, verdict
from harness.peers.rounds import Side, rounds, timed
from harness.records import Checkpoint, Recipe, Shape

WIDTH, HIDDEN, RANK, FORM = 2048, 8192, 8, "int8"
GROUPS, RECOMMENDED = (16, 32, 64, 128), 128
FRACTIONS = (0.1, 0.25, 0.5)  # with a bar at the recommended size
MORE = (0.75, 1.0)  # for the line on which ffns break even
BARS = {1: "<= 1.3", 2: "<= 1.15"}
LEAST_BYTES = 1_000_000_000  # of all layers
OFTEN = 1 - 1e-9  # the fraction that counts as all
BIAS = 5  # place of selector_bias among the tensors of a selective ffn


@dataclass(frozen=True, slots=True)
class Case:
    group: int
    fraction: float
    threads: int

    @property
    def name(self) -> str:
        ran = f"{self.fraction:g} active"
        return f"selective ffn {FORM} groups of {self.group}, {ran}, {self.threads}t"

    @property
    def bar(self) -> str:
        asked = self.group == RECOMMENDED and self.fraction in FRACTIONS
        return BARS.get(self.threads, "") if asked else ""


def even_name(group: int, threads: int) -> str:
    return f"selective ffn {FORM} groups of {group}, fraction that breaks even, {threads}t"


def cases(setup: Setup) -> list[Case]:
    return [
        Case(group, fraction, threads)
        for threads in setup.threads
        for group in GROUPS
        for fraction in FRACTIONS
    ]


def plan(setup: Setup) -> Mapping[str, str]:
    planned = {case.name: case.bar for case in cases(setup)}
    return planned | {even_name(g, t): "" for t in setup.threads for g in GROUPS}


def cells(setup: Setup) -> Iterator[Cell]:
    for threads in setup.threads:
        dense = feed.open_feed(made("dense", 32, setup), threads, setup.cpus[:threads])
        try:
            for group in GROUPS:
                setup.say(f"groups of {group}, {threads} threads")
                yield from _cells(setup, dense, group, threads)
        finally:
            feed.close(dense)


def made(ffn: str, group: int, setup: Setup) -> Checkpoint:
    """Random weights; the mixers are small, and never run."""
    width, hidden = (256, 512) if setup.quick else (WIDTH, HIDDEN)
    size = 3 * width * hidden
    least = max(LEAST_BYTES, 4 * limits.last_cache(setup.cpus))
    layers = 2 if setup.quick else -(-least // size)
    shape = Shape(
        vocabulary=32, width=width, layers=layers, mixers=("mcsd-paper",) * layers, ffn=ffn,
        hidden=hidden, heads=width // 64, kv_heads=width // 64, head_width=64, channels=8,
        context=32, group=group, selector_rank=RANK, tied=True,
    )  # fmt: skip
    return random.checkpoint(Recipe(name=f"bench+{ffn}:{width}", shape=shape, steps=(FORM,)))


def _cells(setup: Setup, dense: feed.Feed, group: int, threads: int) -> Iterator[Cell]:
    checkpoint = made("selective", group, setup)
    ours = feed.open_feed(checkpoint, threads, setup.cpus[:threads])
    rng = np.random.default_rng(group)
    ran: dict[str, list[float]] = {}
    sides: dict[str, Side] = {"dense": timed(dense.lap)}
    try:
        for fraction in (*FRACTIONS, *MORE):
            shares = ran.setdefault(str(fraction), [])
            sides[str(fraction)] = _side(ours, checkpoint, fraction, rng, shares)
        samples = rounds(sides, setup.rounds)
    finally:
        feed.close(ours)
    base = samples["dense"]
    for fraction in FRACTIONS:
        case, shares = Case(group, fraction, threads), ran[str(fraction)][-setup.rounds :]
        ideal = [share * seconds for share, seconds in zip(shares, base, strict=True)]
        over = [s / i for s, i in zip(samples[str(fraction)], ideal, strict=True)]
        low, high, _ = stats.median_interval(over)
        ratio = stats.median(over)
        yield Cell(
            cell=case.name, ours=stats.median(samples[str(fraction)]), theirs=stats.median(ideal),
            ratio=ratio, low=low, high=high, bar=case.bar,
            met=verdict(case.bar, ratio, low, high), headline=bool(case.bar),
            note=f"time over ideal, all layers; {stats.median(shares):.3f} of the groups ran",
        )  # fmt: skip
    lines = [
        [(0.0, 0.0)]
        + [(ran[str(f)][i - setup.rounds], samples[str(f)][i] / base[i])
           for f in (*FRACTIONS, *MORE)]
        for i in range(setup.rounds)
    ]  # fmt: skip
    found = [breaks_even(line) for line in lines]
    low, high, _ = stats.median_interval(found)
    yield Cell(
        cell=even_name(group, threads), ours=stats.median(found), unit="1",
        ratio=stats.median(found), low=low, high=high,
        note="below this active fraction it is faster than the dense ffn",
    )  # fmt: skip


def _side(
    ours: feed.Feed,
    checkpoint: Checkpoint,
    fraction: float,
    rng: np.random.Generator,
    shares: list[float],
) -> Side:
    """A turn with new inputs; notes the share of all groups that ran."""
    first = "layers.0.ffn."  # random weights are the same in every layer, inputs are not
    inner, outer = (checkpoint.arrays[first + n] for n in ("selector_in", "selector_out"))
    matrix = outer.astype(np.float64) @ inner
    # of a normal input: so many standard deviations above what half of the tokens choose
    deviation = np.linalg.norm(matrix, axis=1)
    bias = (NormalDist().inv_cdf(min(fraction, OFTEN)) * deviation).astype(np.float32)
    lap = timed(ours.lap)

    def turn() -> float:
        for place in ours.places[:, BIAS]:
            ours.small[place : place + bias.size] = bias
        ours.x[:] = rng.standard_normal(ours.x.shape)
        shares.append(float((ours.x @ matrix.T + bias > 0).mean()))
        return lap()

    return turn


def breaks_even(line: Sequence[tuple[float, float]]) -> float:
    """Where points (fraction, time over dense) first reach 1, between the two around it; or 1."""
    for (x0, y0), (x1, y1) in pairwise(line):
        if y1 >= 1.0:
            return x0 + (x1 - x0) * (1.0 - y0) / (y1 - y0)
    return 1.0


def table(found: Sequence[Cell]) -> str:
    """By group size and threads: time over ideal, and the fraction that breaks even."""
    by_name = {cell.cell: cell for cell in found}
    threads = sorted({int(name.rsplit(", ", 1)[1].removesuffix("t")) for name in by_name})
    head = " | ".join(f"{f:g} active" for f in FRACTIONS)
    lines = [f"| groups of | threads | {head} | breaks even at |",
             "|--:|--:|" + "--:|" * (len(FRACTIONS) + 1)]  # fmt: skip
    for group in GROUPS:
        for count in threads:
            names = [Case(group, fraction, count).name for fraction in FRACTIONS]
            values = [by_name.get(n) for n in (*names, even_name(group, count))]
            said = [f"{v.ratio:.2f}" if v and v.ratio else "-" for v in values]
            lines.append(f"| {group} | {count} | {' | '.join(said)} |")
    return "\n".join(lines)


SPEC = Group(
    name="selective",
    summary="A selective ffn, time over ideal (active fraction times dense)",
    plan=plan,
    cells=cells,
    table=table,
    peers=("numba",),
)
