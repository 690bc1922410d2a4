"""A session of a recurrent mixer that has read a text, and can go back to depths on its way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.engines.numba import session as engine
from harness.peers import twins
from harness.peers.rounds import Side
from harness.records import Array


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A session, and the state it had at each depth."""

    session: engine.Session
    states: Mapping[int, Array]

    def rewind(self, depth: int) -> None:
        self.session.arenas.state[:] = self.states[depth]
        self.session.depth = depth


def read(session: engine.Session, at: Sequence[int]) -> Recurrent:
    """Let a fresh session read a text, and keep its state at depths in rising order."""
    engine.reset(session)
    tokens, states = twins.text(session.shape.vocabulary, max(at) + 1), {}
    for depth in at:
        if depth > session.depth:
            engine.feed(session, tokens[session.depth : depth])
        states[depth] = session.arenas.state.copy()
    return Recurrent(session, states)


def turn_at(ours: Recurrent, depth: int, steps: int) -> Side:
    """Seconds of one of `steps` tokens from a depth that it has been at."""
    tokens = [int(token) for token in twins.text(ours.session.shape.vocabulary, steps)]

    def turn() -> float:
        ours.rewind(depth)
        begin = time.perf_counter()
        for token in tokens:
            engine.step(ours.session, token)
        return (time.perf_counter() - begin) / steps

    return turn
