"""Base commit + working tree -> which kernels and decode steps became slower.

Both trees are timed in one job: samples of the two alternate on one core, in fresh torch-free
workers that are replaced several times (duel.py). verdict.py tells a change from noise. What
fails is measured again by other workers before it counts; what cannot be told is measured again
up to a bound and then reported as inconclusive. That the results of kernels are right, and how
many bytes and operations they need, is exact, and the ordinary tests' job.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness import checkpoint, plugins
from harness.errors import UnknownName
from harness.gate import base as bases
from harness.gate.duel import Generation, Setting, alone, fight
from harness.gate.verdict import Limits, Outcome, Pair, Verdict, judge, settled
from harness.stats import median
from harness.table import si

STEPS = ("attention:nano@int8", "mcsd:nano@int8", "mcsd+selective:nano")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """generations: pairs of fresh workers in a batch; rounds: pairs of samples of each."""

    generations: int = 4
    rounds: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One item's outcome. base is empty where the base commit cannot run it: `new`.

    verdict: on the pairs of all batches together, while `outcome` weighs batch by batch
    """

    item: str
    sizes: Mapping[str, int]
    base: tuple[float, ...]  # seconds of one call, a value a sample
    now: tuple[float, ...]
    outcome: Literal["pass", "fail", "inconclusive", "new"]
    batches: int
    verdict: Verdict | None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    commit: str  # of the base
    compared: tuple[Compared, ...]
    limits: Limits
    seconds: float  # that the gate took


def items() -> tuple[str, ...]:
    """All that is gated: every kernel, and whole decode steps on random weights."""
    return (*sorted(plugins.kernel_specs()), *STEPS)


def gate(
    base: str | None = None,
    chosen: Sequence[str] | None = None,
    *,
    limits: Limits | None = None,
    effort: Effort | None = None,
    progress: Callable[[str], None] = lambda told: None,
    root: Path = bases.ROOT,
) -> Report:
    """Compare the working tree with a commit; see base.resolve for which one.

    chosen: items, all without it; a candidate's name is a decode step.
    Raises BadInput, UnknownName, WorkerFailed.
    """
    begin = time.perf_counter()
    limits, effort = limits or Limits(), effort or Effort()
    for name in chosen or ():
        if ":" not in name and name not in items():
            raise UnknownName(f"nothing to gate is called {name!r}; known: {', '.join(items())}")
    commit = bases.resolve(base, root)
    with tempfile.TemporaryDirectory(prefix="edgewise-gate-") as name:
        old, new = Path(name, "base"), Path(name, "now")
        bases.extract(commit, old, root)
        bases.copy(new, root)
        compared = compare(
            old, new, tuple(dict.fromkeys(chosen or items())), limits, effort, progress
        )
    seconds = time.perf_counter() - begin
    return Report(commit=commit, compared=compared, limits=limits, seconds=seconds)


def kernel_times(rounds: int = 7) -> dict[str, tuple[dict[str, int], float]]:
    """Every kernel of this installation: the sizes it was timed at, and a call's median seconds."""
    root, cache = Path(__file__).parents[2], checkpoint.folder() / "gate"
    found = alone(root, tuple(plugins.kernel_specs()), rounds, cache=cache)
    return {name: (sizes, median(times)) for name, (sizes, times) in found.items()}


def compare(
    old: Path,
    new: Path,
    chosen: Sequence[str],
    limits: Limits,
    effort: Effort,
    progress: Callable[[str], None] = lambda told: None,
) -> tuple[Compared, ...]:
    """The trees in two folders, batch after batch, until every item's outcome is settled."""
    cache = checkpoint.folder() / "gate"
    done: dict[str, list[Generation]] = {item: [] for item in chosen}
    outcomes: dict[str, list[Outcome]] = {item: [] for item in chosen}
    settings: dict[str, Setting] = {}
    absent: dict[str, str] = {}
    open_items, batch = list(chosen), 0
    while open_items:
        batch += 1
        for number in range(effort.generations):
            progress(f"batch {batch}, workers {number + 1} of {effort.generations}: "
                     f"{len(open_items)} to time")  # fmt: skip
            fought = fight(old, new, open_items, effort.rounds, cache=cache, settings=settings)
            settings |= fought.settings
            absent |= fought.absent
            for item in open_items:
                done[item].append(fought)
        for item in open_items:
            latest = [g.pairs[item] for g in done[item][-effort.generations :]]
            outcomes[item].append("pass" if item in absent else judge(latest, limits).outcome)
        open_items = [item for item in open_items if settled(outcomes[item]) is None]
    return tuple(
        _compared(item, [g.pairs[item] for g in done[item]], settings[item], outcomes[item],
                  absent.get(item), limits)
        for item in chosen
    )  # fmt: skip


def failures(report: Report) -> tuple[str, ...]:
    """The items that became slower; empty lets the change through."""
    return tuple(c.item for c in report.compared if c.outcome == "fail")


def told(c: Compared) -> str:
    """One item's outcome as a sentence."""
    if c.verdict is None:
        return f"{c.item} is {c.outcome}: {c.why}"
    v = c.verdict
    return (
        f"{c.item}: {c.outcome}{f' ({c.why})' if c.why else ''}; {v.ratio:.2f} times the time of "
        f"base ({v.low:.2f} to {v.high:.2f}), {si(v.difference, 's')} more a call, p = {v.p:.1g}"
    )


def table(report: Report) -> str:
    """One line an item, then what the outcomes mean."""
    widest = max((len(c.item) for c in report.compared), default=0)
    head = (
        f"{'item':{widest}}  {'base':>8}  {'now':>8}  {'ratio':>5}  {'95 %':>11}  {'p':>7}  pairs"
    )
    lines = [f"base {report.commit[:12]} against the working tree", f"{head}  outcome"]
    lines += [_line(c, widest) for c in report.compared]
    counts = {
        name: sum(c.outcome == name for c in report.compared)
        for name in ("fail", "inconclusive", "new", "pass")
    }
    limits = report.limits
    lines += [
        ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        + f"; {report.seconds:.0f} s",
        f"fail: {limits.ratio:.2f} times slower or more, by {si(limits.seconds, 's')} a call or "
        f"more, p <= {limits.chance:g}, twice in a row with fresh workers",
    ]
    return "\n".join(lines)


def _line(c: Compared, widest: int) -> str:
    base = si(median(c.base), "s") if c.base else "-"
    ratio, interval, p = "-", "-", "-"
    if c.verdict:
        ratio, p = f"{c.verdict.ratio:.2f}", f"{c.verdict.p:.1g}"
        interval = f"{c.verdict.low:.2f}-{c.verdict.high:.2f}"
    return (
        f"{c.item:{widest}}  {base:>8}  {si(median(c.now), 's'):>8}  {ratio:>5}  {interval:>11}  "
        f"{p:>7}  {len(c.now):5}  {c.outcome}{f': {c.why}' if c.why else ''}"
    )


def _compared(
    item: str,
    generations: Sequence[Sequence[Pair]],
    setting: Setting,
    outcomes: Sequence[Outcome],
    absent: str | None,
    limits: Limits,
) -> Compared:
    pairs = [pair for generation in generations for pair in generation]
    verdict = None if absent else judge(generations, limits)
    outcome = settled(outcomes) or "inconclusive"
    why = ""
    if absent:
        why = f"nothing to compare with ({absent})"
    elif verdict and outcome == "inconclusive":
        why = verdict.why or "batches disagree"
    return Compared(
        item=item,
        sizes=setting.sizes,
        base=() if absent else tuple(base for base, _ in pairs),
        now=tuple(now for _, now in pairs),
        outcome="new" if absent else outcome,
        batches=len(outcomes),
        verdict=verdict,
        why=why,
    )
