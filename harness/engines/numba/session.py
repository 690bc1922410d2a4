"""Open a checkpoint, feed it tokens, read logits."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from harness import arena
from harness.engines.numba import arenas, crew, plan
from harness.errors import BadInput
from harness.records import Array, Checkpoint, Shape

STOOD = 256  # tokens read to stand at a depth


@dataclass(slots=True, weakref_slot=True, eq=False)
class Session:
    """A checkpoint ready to run, with the context it has seen so far.

    depth: tokens seen; room: tokens that fit; load_seconds: what the first call took to compile or
    to load from the cache; compile_seconds: what compiling took when the cache had nothing.
    torn: an interrupt or error ended a call, so that depth may not be what the state has seen.
    The checkpoint itself is not kept.
    """

    name: str
    arenas: arenas.Arenas
    crew: crew.Crew
    tokens: Array
    room: int
    shape: Shape
    depth: int = 0
    load_seconds: float = 0.0
    compile_seconds: float = 0.0
    closed: bool = False
    torn: bool = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        close(self)


def open_session(
    checkpoint: Checkpoint,
    *,
    room: int,
    threads: int = 1,
    chunk: int = arena.AT_ONCE,
    cores: Sequence[int] = (),
) -> Session:
    """Lay out, plan, compile. Raises BadCheckpoint, BadInput."""
    if threads < 1 or room < 1 or chunk < 1:
        raise BadInput(f"threads, room and chunk must be at least 1: {threads}, {room}, {chunk}")
    laid_out = arenas.build(checkpoint, room, chunk, threads)
    tokens = np.zeros(chunk, np.int64)
    a = laid_out
    arrays = (
        tokens, a.dims, a.weights, a.small, a.state, a.scratch, a.prepared, a.logits,
        a.norms, a.mixers, a.ffns, a.ends,
    )  # fmt: skip
    module, seconds = _compiled(checkpoint, arrays)
    team = crew.Crew(threads, module.enter, arrays)
    session = Session(checkpoint.recipe.name, laid_out, team, tokens, room, checkpoint.shape)
    session.load_seconds = seconds
    session.compile_seconds = plan.first_seconds(module, seconds)
    reset(session)
    crew.start(team, cores)
    # Also when the interpreter ends, or when nobody has the session any more.
    weakref.finalize(session, crew.stop, team)
    return session


def _compiled(checkpoint: Checkpoint, arrays: Sequence[Array]) -> tuple[ModuleType, float]:
    """The plan after a first call, which compiles it or loads it, and the seconds of that call.

    One thread makes it, so that no other waits for a compiler.
    """
    module = plan.load(checkpoint)
    begin = time.perf_counter()
    try:
        crew.run(crew.Crew(1, module.enter, arrays), 1, 0, 0)
    except Exception:
        # Most likely a damaged file in the cache, which Numba reports in as many ways as there
        # are damages. Anything else is raised again by what comes out of the compiler.
        plan.renew(module)
        module = plan.load(checkpoint)
        crew.run(crew.Crew(1, module.enter, arrays), 1, 0, 0)
    return module, time.perf_counter() - begin


def close(session: Session) -> None:
    crew.stop(session.crew)
    session.closed = True


def reset(session: Session) -> None:
    """Forget the context."""
    session.depth, session.torn = 0, False
    session.arenas.state.fill(0.0)


def feed(session: Session, tokens: Sequence[int] | Array, every: bool = False) -> Array:
    """Read tokens; returns the logits after the last one (vocabulary,), or after each one.

    With `every`, (n, vocabulary). The array is the caller's. Raises BadInput for a token outside
    the vocabulary, a full context or a closed session.
    """
    values = _check(session, np.asarray(tokens))
    out = []
    # all logits of a long vocabulary would take more room than the model
    chunk = session.arenas.logits.shape[0] if every else session.tokens.size
    try:
        for start in range(0, values.size, chunk):
            part = values[start : start + chunk]
            session.tokens[: part.size] = part
            last = start + part.size == values.size
            first = 0 if every else part.size - int(last)
            crew.run(session.crew, part.size, session.depth, first)
            session.depth += part.size
            if every:
                out.append(session.arenas.logits[: part.size].copy())
    except BaseException:
        session.torn = True
        raise
    return np.concatenate(out) if every else session.arenas.logits[0].copy()


def ran(session: Session, n: int) -> Array:
    """The share of groups of neurons that each of the last call's n tokens ran, mean over layers.

    (n,) float64; 0 for a dense ffn, which has none.
    """
    shape, dims = session.shape, session.arenas.dims
    counts = session.arenas.scratch[dims[arena.RAN] : dims[arena.RAN] + n].astype(np.float64)
    return counts / (shape.layers * (shape.hidden // shape.group))


def stand(session: Session, text: Sequence[int] | Array, depth: int) -> None:
    """A context of `depth` tokens, for timing: some are read, and their state is repeated.

    Reading thousands of tokens would take longer than timing them, and no time depends on what a
    cache holds.
    """
    read = np.resize(np.asarray(text), min(depth, STOOD))
    feed(session, read)
    arenas.repeat(session.arenas, session.shape, depth)
    session.depth = depth


def step(session: Session, token: int) -> Array:
    """One decode step for timing and generation: the engine's own array of logits, not a copy.

    Raises BadInput as `feed` does.
    """
    unfit = session.closed or session.torn or session.depth >= session.room
    if unfit or not 0 <= token < session.shape.vocabulary:
        _check(session, np.array([token]))
    try:
        session.tokens[0] = token
        crew.run(session.crew, 1, session.depth, 0)
        session.depth += 1
    except BaseException:
        session.torn = True
        raise
    logits: Array = session.arenas.logits[0]
    return logits


def _check(session: Session, tokens: Array) -> Array:
    """The tokens as whole numbers, or BadInput."""
    if session.closed:
        raise BadInput(f"the session of {session.name} is closed; open another one")
    if session.torn:
        raise BadInput(
            f"a call of the session of {session.name} was interrupted; reset it before the next"
        )
    if tokens.ndim != 1 or tokens.size == 0:
        raise BadInput(f"tokens must be one non-empty row, got shape {tokens.shape}")
    if not np.issubdtype(tokens.dtype, np.integer):
        raise BadInput(f"tokens must be whole numbers, got {tokens.dtype}")
    bad = tokens[(tokens < 0) | (tokens >= session.shape.vocabulary)]
    if bad.size:
        raise BadInput(f"token {bad[0]} is outside the vocabulary of {session.shape.vocabulary}")
    if session.depth + tokens.size > session.room:
        raise BadInput(
            f"{session.depth} + {tokens.size} tokens do not fit a context of {session.room}; "
            f"open the session with more room"
        )
    return tokens.astype(np.int64)
