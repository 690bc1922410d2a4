"""The training in front of the user, and its loss beside ours."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from harness import candidates, quality
from harness import checkpoint as checkpoints
from harness.make import make, pack

if TYPE_CHECKING:
    from rich.progress import Progress

    from harness.sweep import Train


def demonstrate(wanted: Train, corpus: str, progress: Progress) -> str:
    """Train (or find what was trained here before); one line that compares."""
    recipe = candidates.parse(wanted.candidate, corpus=corpus, tokens=wanted.tokens)
    there = checkpoints.path_of(recipe).exists()
    task = progress.add_task(f"train {wanted.candidate}", total=None)
    begin = time.perf_counter()

    def watch(stage: str, done: int, total: int) -> None:
        name = f"train {wanted.candidate}: {stage}"
        progress.update(task, description=name, completed=done, total=total)

    checkpoint = make(recipe, watch)
    progress.remove_task(task)
    found = float(checkpoint.provenance["validation_bits"])
    close = abs(found - wanted.bits_per_byte) <= wanted.tolerance
    packed = replace(pack(checkpoint, "int8"), recipe=recipe)
    score = quality.score(packed)
    when = "before" if there else f"in {time.perf_counter() - begin:.0f} s"
    verdict = "agrees with" if close else "DIFFERS from"
    return (
        f"trained {wanted.candidate} on {wanted.tokens:,} bytes {when}: {found:.3f} bits per byte "
        f"held out, {verdict} ours ({wanted.bits_per_byte:.3f} ± {wanted.tolerance}); as int8 "
        f"through the engine {score.value:.3f} ± {score.standard_error:.3f} on the test text"
    )
