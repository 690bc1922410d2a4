"""The nouns of a study: what its TOML says, and the row of one trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic.dataclasses import dataclass as checked

from harness.records import Recipe

SCHEMA = 1  # raised by one whenever a stored field changes meaning
LOSS = "nats per token"


# ---- what the TOML says ------------------------------------------------------------------------


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Arm:
    """Candidates that differ in nothing but their seed.

    seeds: how many, from 0, or which; set: fields of the recipe or its shape to set otherwise
    steps: what is derived from the same trained weights and scored too, e.g. "prune50+int8"
    protocols: how the plain weights are scored; what is derived is scored by `step_protocols`,
        by the first of them unless told otherwise
    task: arms of one task are compared with each other; by corpus and window unless told otherwise
    side: what an arm stands for in comparisons of two sides; its mixer unless told otherwise
    tuned: the tuning that its learning rate comes from; one of its candidate, else of its side's
        name by default
    """

    name: str
    candidate: str
    corpus: str
    tokens: int | None = None
    seeds: int | tuple[int, ...] = 1
    set: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("windows",)
    step_protocols: tuple[str, ...] = ()
    task: str = ""
    side: str = ""
    tuned: str = ""


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Tuning:
    """One side's grid of learning rates, on a split that nothing is reported on."""

    name: str
    candidate: str
    rates: tuple[float, ...]
    corpus: str
    tokens: int | None = None
    seeds: int | tuple[int, ...] = 1
    set: Mapping[str, Any] = field(default_factory=dict)


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Timing:
    """An optimiser step of two arms, timed in turns; its value is theirs over ours."""

    name: str
    ours: str
    theirs: str
    seeds: int | tuple[int, ...] = 3
    rounds: int = 15


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Claim:
    """An expression over arms and the bar it must reach, e.g. "mcsd - attention", "<= -0.06"."""

    claim: str
    value: str
    bar: str
    unit: str = LOSS


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Line:
    """A sentence of the answer. Which one depends on where the whole interval of `value` lies.

    wins: below `against` (above it where more is better); loses: beyond it; else unresolved
    In each, {value} and its interval {low}, {high} are filled in with a sign, {size} and {least},
    {most} without one, and {plain}, {seeds}.
    """

    value: str
    wins: str
    loses: str
    unresolved: str
    better: str = "lower"
    against: float = 0.0
    decimals: int = 3


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Ranking:
    """Arms whose order was published elsewhere, best first."""

    title: str
    arms: tuple[str, ...]
    source: str


@checked(frozen=True, kw_only=True, config={"extra": "forbid"})
class Study:
    """A whole study. devices: projected to; reference: the side that others are held against."""

    title: str
    arm: tuple[Arm, ...]
    reference: str = "attention"
    tuning: tuple[Tuning, ...] = ()
    timing: tuple[Timing, ...] = ()
    claim: tuple[Claim, ...] = ()
    line: tuple[Line, ...] = ()
    ranking: tuple[Ranking, ...] = ()
    devices: tuple[str, ...] = ()


# ---- what a trial leaves -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One scoring of one set of weights, with all that a sceptic would ask about it.

    failed: why there is no value; "" where there is one
    value, standard_error: of `metric`, over `tokens_scored` held-out tokens
    figures: further numbers by name; curves: (x, value, standard error) by name
    parameters: after all steps; formats: how many of them each format stores
    resident_bytes: weights, state and scratch as the engine laid them out
    tokens, finetuning_tokens, teacher_tokens: seen in training; characters: of text among the
        first, None where the task is generated
    rates_tried: learning rates of the grid that `learning_rate` was chosen from, on `rates_corpus`
    against: what an optimiser step was timed against
    """

    recipe: Recipe
    recipe_hash: str
    seed: int
    protocol: str
    corpus: str
    corpus_hash: str
    failed: str = ""
    metric: str = ""
    value: float | None = None
    standard_error: float = 0.0
    tokens_scored: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, tuple[tuple[float, float, float], ...]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    checkpoint_hash: str = ""
    trained_on: str = ""
    parameters: int = 0
    formats: Mapping[str, int] = field(default_factory=dict)
    resident_bytes: int = 0
    training_steps: int = 0
    tokens: int = 0
    characters: int | None = None
    finetuning_tokens: int = 0
    teacher: str = ""
    teacher_tokens: int = 0
    learning_rate: float = 0.0
    rates_tried: tuple[float, ...] = ()
    rates_corpus: str = ""
    against: Recipe | None = None
    engine: str = "numba"
    kernel_hash: str = ""
    training_seconds: float = 0.0
    scoring_seconds: float = 0.0
    commit: str = ""
    dirty: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    started: str = ""
    schema: int = SCHEMA
