"""Recipes -> seconds of training for each token of theirs, by turns in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.peers.rounds import rounds, timed
from harness.records import Recipe

STEPS = 4  # of a turn: long enough for a clock, short enough that both sides share the weather


@dataclass(frozen=True, slots=True)
class Seconds:
    """For one trained token of each side, by round."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]


def side_by_side(ours: Recipe, theirs: Recipe, count: int) -> Seconds:
    """`count` rounds after a warm-up; each side has its own stack, corpus and window."""
    found = rounds({"ours": _side(ours, STEPS), "theirs": _side(theirs, STEPS)}, count)
    return Seconds(found["ours"], found["theirs"])


def a_token(recipe: Recipe) -> float:
    """A quick look, for estimates."""
    side = _side(recipe, 1)
    side()
    return side()


def _side(recipe: Recipe, steps: int) -> Callable[[], float]:
    from harness.training.turns import turn  # noqa: PLC0415 - needs PyTorch

    seconds = timed(turn(recipe, steps))
    return lambda: seconds() / (steps * recipe.batch * recipe.shape.context)
