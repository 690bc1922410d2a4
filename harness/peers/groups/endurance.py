"""A long decode: its last thousand tokens against its first, and the memory they take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np

from harness import candidates
from harness.engines.numba import session as engine
from harness.errors import Mismatch
from harness.make import make
from harness.peers import twins
from harness.peers.frame import Cell, Group, Setup, verdict
from harness.peers.rounds import ratios
from harness.stats import median

CANDIDATE = "mcsd:17m@int4"  # in the cache, so that no spell of the memory hides a drift
TOKENS, SPAN = 20_000, 1000
SPEED, MEMORY = "<= 1.03", "<= 1.01"
PARTS = 20  # of a span: their medians are the samples


def speed_name(threads: int) -> str:
    return f"{TOKENS} tokens: seconds a token of the last {SPAN} over the first, {threads}t"


def memory_name(threads: int) -> str:
    return f"{TOKENS} tokens: resident bytes after over before, {threads}t"


def plan(setup: Setup) -> Mapping[str, str]:
    planned: dict[str, str] = {}
    for threads in setup.threads:
        planned |= {speed_name(threads): SPEED, memory_name(threads): MEMORY}
    return planned


def cells(setup: Setup) -> Iterator[Cell]:
    checkpoint = make(candidates.parse(CANDIDATE))
    for threads in setup.threads:
        setup.say(f"{TOKENS} tokens, {threads} threads")
        cores = setup.cpus[:threads]
        room = SPAN + TOKENS
        with engine.open_session(checkpoint, room=room, threads=threads, cores=cores) as session:
            yield from _run(session, threads)


def _run(session: engine.Session, threads: int) -> Iterator[Cell]:
    tokens = [int(token) for token in twins.text(session.shape.vocabulary, SPAN)]
    seconds = np.empty((TOKENS // SPAN, SPAN))
    for token in tokens:
        engine.step(session, token)  # fast clocks, awake helpers, every page in use
    before = _resident()
    for row in seconds:
        for i, token in enumerate(tokens):
            begin = time.perf_counter()
            logits = engine.step(session, token)
            row[i] = time.perf_counter() - begin
    if not np.isfinite(logits).all():
        raise Mismatch(f"{session.name}: logits are not finite after {session.depth} tokens")
    parts = np.median(seconds.reshape(TOKENS // SPAN, PARTS, -1), axis=2)
    first, last = parts[0].tolist(), parts[-1].tolist()
    ratio, low, high = ratios(last, first)
    note = f"{session.name}; theirs: the first"
    yield Cell(
        cell=speed_name(threads), ours=median(last), theirs=median(first), unit="s",
        ratio=ratio, low=low, high=high, bar=SPEED, met=verdict(SPEED, ratio, low, high),
        note=note, headline=threads == 1,
    )  # fmt: skip
    after = _resident()
    grown = after / before if before else 1.0
    yield Cell(
        cell=memory_name(threads), ours=float(after), theirs=float(before), unit="B", ratio=grown,
        low=grown, high=grown, bar=MEMORY, met=verdict(MEMORY, grown, grown, grown),
        note=f"{session.name}; of the whole process",
    )  # fmt: skip


def _resident() -> int:
    """Bytes of this process that are in memory."""
    import psutil  # noqa: PLC0415

    return int(psutil.Process().memory_info().rss)


SPEC = Group(
    name="endurance",
    summary=f"A decode of {TOKENS} tokens",
    plan=plan,
    cells=cells,
    peers=("numba",),
)
