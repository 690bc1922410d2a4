"""MCSD's decode step at depths of a context against the same step without any.

The context was really read. Turns at all depths alternate, each from the state it had there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness import arena, candidates
from harness.engines.numba import arenas
from harness.engines.numba import session as engine
from harness.make import make
from harness.peers import recurrent
from harness.peers.frame import Cell, Group, Setup, verdict
from harness.peers.rounds import ratios, rounds
from harness.stats import median

BAR = "<= 1.03"
STEPS = 8  # tokens of a turn


def candidate(setup: Setup) -> str:
    return "mcsd:17m@int4" if setup.quick else "mcsd:110m@int4"


def depths(setup: Setup) -> tuple[int, ...]:
    return (256,) if setup.quick else (2048, 8192, 16384)


def flat_name(depth: int, threads: int) -> str:
    return f"mcsd at depth {depth} over depth 0, {threads}t"


def memory_name(depth: int, threads: int) -> str:
    return f"mcsd resident bytes at depth {depth} over depth 0, {threads}t"


def plan(setup: Setup) -> Mapping[str, str]:
    planned: dict[str, str] = {}
    for threads in setup.threads:
        planned |= {flat_name(depth, threads): BAR for depth in depths(setup)}
        planned[memory_name(max(depths(setup)), threads)] = BAR
    return planned


def cells(setup: Setup) -> Iterator[Cell]:
    checkpoint = make(candidates.parse(candidate(setup)))
    room = max(depths(setup)) + STEPS
    for threads in setup.threads:
        setup.say(f"reading {max(depths(setup))} tokens, {threads} threads")
        short = arenas.build(checkpoint, STEPS, arena.AT_ONCE, threads).resident_bytes
        cores = setup.cpus[:threads]
        with engine.open_session(checkpoint, room=room, threads=threads, cores=cores) as session:
            long = session.arenas.resident_bytes
            yield from _flat(setup, session, threads)
        yield _cell(
            memory_name(max(depths(setup)), threads), "B", (float(long), float(short)),
            (long / short,) * 3, "counted; theirs: with room for as many tokens as a turn has",
        )  # fmt: skip


def _flat(setup: Setup, session: engine.Session, threads: int) -> Iterator[Cell]:
    ours = recurrent.read(session, (0, *depths(setup)))
    sides = {str(depth): recurrent.turn_at(ours, depth, STEPS) for depth in (0, *depths(setup))}
    setup.say(f"steps at {len(sides)} depths, {threads} threads")
    samples = rounds(sides, 2 * setup.rounds)
    for depth in depths(setup):
        both = samples[str(depth)], samples["0"]
        yield _cell(
            flat_name(depth, threads), "s", (median(both[0]), median(both[1])), ratios(*both),
            f"{candidate(setup)}; theirs: at depth 0", headline=depth == max(depths(setup)),
        )  # fmt: skip


def _cell(
    name: str,
    unit: str,
    medians: tuple[float, float],
    found: tuple[float, float, float],
    note: str,
    headline: bool = False,
) -> Cell:
    ratio, low, high = found
    return Cell(
        cell=name, ours=medians[0], theirs=medians[1], unit=unit, ratio=ratio, low=low, high=high,
        bar=BAR, met=verdict(BAR, ratio, low, high), note=note, headline=headline,
    )  # fmt: skip


SPEC = Group(
    name="flat",
    summary="MCSD's decode step, the same at every depth",
    plan=plan,
    cells=cells,
    peers=("numba",),
)
