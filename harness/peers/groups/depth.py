"""A decode step of MCSD and of Transformers of equal parameters, as the context grows.

All contexts were really read. Sides take turns at one depth after the other, deepest first, because
a cache can only be wound back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness import candidates
from harness.engines.numba import session as engine
from harness.make import make
from harness.peers import recurrent, twins
from harness.peers.frame import Cell, Group, Setup
from harness.peers.rounds import faster, rounds
from harness.plot.race import race_figure

SIZE, FORM = "110m", "int4"
RIVALS = {"ours": "our Transformer", "llama.cpp": "llama.cpp's Transformer"}
STEPS = 8  # tokens of a turn


def depths(setup: Setup) -> tuple[int, ...]:
    return (0, 256) if setup.quick else (0, 2048, 8192, 16384)


def size(setup: Setup) -> str:
    return "17m" if setup.quick else SIZE


def rival_name(depth: int, rival: str, threads: int) -> str:
    return f"mcsd against {RIVALS[rival]} at depth {depth}, {threads}t"


def plan(setup: Setup) -> Mapping[str, str]:
    return {
        rival_name(depth, rival, threads): ""
        for threads in setup.threads
        for depth in depths(setup)
        for rival in RIVALS
    }


def cells(setup: Setup) -> Iterator[Cell]:
    deep = max(depths(setup))
    room = deep + STEPS
    checkpoint = make(candidates.parse(f"mcsd:{size(setup)}@{FORM}"))
    with twins.exported(f"attention:{size(setup)}@{FORM}") as model:
        for threads in setup.threads:
            cores = setup.cpus[:threads]
            setup.say(f"reading {deep} tokens, {threads} threads")
            with (
                engine.open_session(checkpoint, room=room, threads=threads, cores=cores) as session,
                twins.opened(model, setup, threads, room=room) as both,
            ):
                ours = recurrent.read(session, depths(setup))
                twins.fill(both.players, both.vocabulary, deep)
                yield from _rivals(setup, ours, both, threads)


def _rivals(
    setup: Setup, ours: recurrent.Recurrent, both: twins.Twins, threads: int
) -> Iterator[Cell]:
    for depth in sorted(depths(setup), reverse=True):
        setup.say(f"depth {depth}, {threads} threads")
        sides = twins.decode(both.players, both.vocabulary, depth, STEPS)
        sides["mcsd"] = recurrent.turn_at(ours, depth, STEPS)
        samples = rounds(sides, setup.rounds)
        for rival in RIVALS:
            yield faster(
                rival_name(depth, rival, threads), samples, bar="", ours="mcsd", theirs=(rival,),
                note=f"{size(setup)} {FORM}, {STEPS} tokens a turn", headline=True,
            )  # fmt: skip


def figure(found: Sequence[Cell], path: Path) -> Path | None:
    """Time per token against depth, a panel a thread count; None when cells are missing."""
    by_name = {cell.cell: cell for cell in found if cell.ours and cell.theirs}
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for threads in range(1, 65):
        lines: dict[str, dict[int, float]] = {}
        for depth in depths(Setup(threads=(threads,))):
            for rival, words in RIVALS.items():
                cell = by_name.get(rival_name(depth, rival, threads))
                if cell and cell.ours and cell.theirs:
                    lines.setdefault("MCSD", {})[depth] = cell.ours
                    lines.setdefault(words, {})[depth] = cell.theirs
        if lines:
            panels[f"{threads} thread{'s' if threads > 1 else ''}"] = lines
    return race_figure(panels, path, f"{SIZE} parameters, {FORM}") if panels else None


SPEC = Group(
    name="depth",
    summary="MCSD and Transformers of equal parameters, as the context grows",
    plan=plan,
    cells=cells,
    needs=("llama_cpp", "gguf"),
    peers=("numba", "llama_cpp"),
    timeout=3600.0,
    figure=figure,
    source="llama-bench's tg at depths, with the logits fetched",
)
