"""Our own engine behind the interface that every engine has."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from harness.cores import affinity_for
from harness.errors import BadInput
from harness.records import Array, Checkpoint, Engine, Opened

NOTABLE = ("avx2", "avx512f", "avx512vnni", "avx512bf16", "neon", "dotprod", "i8mm")


class Numba:
    """A session of ours; see session.py, which timed code calls directly."""

    def __init__(self, checkpoint: Checkpoint, room: int, threads: int) -> None:
        from harness.engines.numba import session  # noqa: PLC0415 - brings numba

        self._engine = session
        self._session = session.open_session(
            checkpoint, room=room, threads=threads, cores=affinity_for(threads)
        )

    def feed(self, tokens: Sequence[int]) -> Array:
        return self._engine.feed(self._session, tokens)

    def step(self, token: int) -> Array:
        return self._engine.step(self._session, token)

    def reset(self) -> None:
        self._engine.reset(self._session)

    def close(self) -> None:
        self._engine.close(self._session)


def open_checkpoint(checkpoint: Checkpoint, room: int, threads: int, form: str = "") -> Opened:
    """Raises BadInput for a form that the checkpoint's weights are not in."""
    held = next(iter(checkpoint.formats.values()), "f32")
    if form not in ("", held):
        raise BadInput(f"{checkpoint.recipe.name} holds {held} weights, not {form}")
    return Numba(checkpoint, room, threads)


def about() -> str:
    from kernels import lowering  # noqa: PLC0415 - brings numba

    return (
        f"Numba {importlib.metadata.version('numba')}, compiled for this machine "
        f"({', '.join(filter(lowering.has, NOTABLE)) or 'plain'}); weights repacked at load into "
        "one stream a matrix; threads pinned, waiting in compiled code"
    )


SPEC = Engine(
    name="numba",
    summary="ours: a whole step in one compiled function",
    packages=(),
    forms={"": "the format of the checkpoint"},
    about=about,
    open=open_checkpoint,
    source="harness/engines/numba",
)
