"""Rows -> choices: all that is known of a candidate on a device at one context depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness import evidence
from harness.errors import BadInput
from harness.evidence import Reading
from harness.records import Quality, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A candidate on a device with so many threads, and all that is known of it there."""

    row: Row  # the decode run at the asked depth
    seconds: Reading | None  # of one token
    rate: Reading | None  # tokens of a second
    joules: Reading | None  # of one token
    memory: Reading | None
    first_token: Reading | None
    step: Reading | None  # seconds of one optimiser step of the candidate before its steps
    step_memory: Reading | None
    quality: Quality | None

    @property
    def kind(self) -> str:
        """measured or projected: where its time is from, or was tried."""
        return "projected" if self.row.environment is None else "measured"


def choices(rows: Sequence[Row], depth: int) -> list[Choice]:
    """One choice for each decode row at that depth, the longest run where there are several."""
    decodes = [row for row in rows if row.phase == "decode"]
    chosen = {
        _place(row): row
        for row in sorted(decodes, key=lambda row: row.tokens)
        if row.depth == depth
    }
    if not chosen:
        depths = ", ".join(map(str, sorted({row.depth for row in decodes}))) or "none"
        raise BadInput(f"no decode rows at context depth {depth}; depths with rows: {depths}")
    first = [row for row in rows if row.workload.split()[0] == "ttft"]
    prompts = {_prompt_place(row): row.seconds for row in sorted(first, key=_slowest_first)}
    trained = [row for row in rows if row.phase == "train" and evidence.read(row.seconds)]
    steps = {_training_place(row): row for row in sorted(trained, key=_slowest_first)}
    found = []
    for row in chosen.values():
        step = steps.get(_training_place(row))
        seconds = evidence.per(evidence.read(row.seconds), row.tokens)
        choice = Choice(
            row=row,
            seconds=seconds,
            rate=_inverse(seconds),
            joules=evidence.per(evidence.read(row.joules), row.tokens),
            memory=evidence.read(row.resident),
            first_token=evidence.read(prompts.get(_prompt_place(row))),
            step=evidence.read(step.seconds) if step else None,
            step_memory=evidence.read(step.resident) if step else None,
            quality=row.quality,
        )
        found.append(choice)
    return found


def _place(row: Row) -> tuple[str, ...]:
    host = row.environment.host if row.environment else ""
    return row.candidate, row.device, host, row.engine, str(row.threads)


def _training_place(row: Row) -> tuple[str, ...]:
    """Where what a candidate was made from is trained, whatever the threads."""
    host = row.environment.host if row.environment else ""
    return row.candidate.partition("@")[0], row.device, host


def _prompt_place(row: Row) -> tuple[str, ...]:
    """Where a prompt's row serves: a projection picks the fastest thread count of each workload."""
    return _place(row) if row.environment else _place(row)[:-1]


def _slowest_first(row: Row) -> tuple[float, int]:
    reading = evidence.read(row.seconds)
    return (-reading.value if reading else -math.inf), row.threads


def _inverse(reading: Reading | None) -> Reading | None:
    if reading is None or min(reading.value, reading.low) <= 0:
        return None
    low, high = 1 / reading.high, 1 / reading.low
    return replace(reading, value=1 / reading.value, low=low, high=high)
