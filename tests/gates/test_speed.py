"""Base commit against working tree; pytest-benchmark stores and shows what the gate measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness import gate


class Replay:
    """A clock that stands still, but for the samples played back to it."""

    seconds = 0.0

    def play(self, sample: float) -> None:
        self.seconds += sample


CLOCK = Replay()


def replayed() -> float:
    return CLOCK.seconds


pytestmark = pytest.mark.benchmark(timer=replayed)
each = pytest.mark.parametrize("item", gate.items())


@each
def test_base(item: str, report: gate.Report, benchmark: Any) -> None:
    found = next(c for c in report.compared if c.item == item)
    if found.outcome == "new":
        benchmark.skipped = True  # else it warns that it was not used
        pytest.skip(gate.told(found))
    show(benchmark, found, found.base)


@each
def test_working_tree_is_no_slower_than_base(
    item: str, report: gate.Report, benchmark: Any
) -> None:
    found = next(c for c in report.compared if c.item == item)
    show(benchmark, found, found.now)
    if found.outcome == "inconclusive":
        pytest.skip(gate.told(found))
    if found.outcome == "fail":
        pytest.fail(gate.told(found), pytrace=False)


def show(benchmark: Any, found: gate.Compared, samples: Sequence[float]) -> None:
    benchmark.group = found.item
    benchmark.extra_info |= {"outcome": found.outcome, **found.sizes}
    waiting = iter(samples)
    benchmark.pedantic(CLOCK.play, setup=lambda: ((next(waiting),), {}), rounds=len(samples))
