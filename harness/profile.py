"""Candidate -> where the time of its decode step goes, stage by stage, on this host."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from harness import candidates, flame, machine, make, memory, plugins, stages, workload
from harness.cores import affinity_for
from harness.errors import BadInput
from harness.limits import cached_limits
from harness.records import Array, Call, Checkpoint, Workload
from harness.table import CPU_ONLY, si, threads_text
from harness.table import size as bytes_of
from kernels import laps

FLAME_SECONDS = 5.0
SECONDS = 1.0  # of decoding in each of two processes a build, or one round of the tokens
TEXT_TOKENS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of all layers together, per decoded token.

    kernels: calls a token, by kernel; bytes_read: weights and state [B], None where the workload
    lists no call (the embedding looks one row up); of_limit: of the host's read bandwidth
    """

    name: str
    kernels: Mapping[str, int]
    seconds: float
    share: float  # of the whole stage-timed step
    bytes_read: int | None
    bytes_per_s: float | None
    of_limit: float | None
    operations: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Times are per token: the mean over the middle half of all tokens, by their time.

    entry_seconds: from Python into compiled code and back, outside every stage
    timed_seconds: the step of the stage-timed build, the stages and the entry together
    plain_seconds: the step of the ordinary build, which is the one that is published
    flame_graph: path of the SVG, "" when `flame_note` says why there is none
    """

    candidate: str
    tokens: int
    depth: int
    threads: int
    stages: tuple[Stage, ...]
    entry_seconds: float
    timed_seconds: float
    plain_seconds: float
    limit: Literal["memory", "last-level cache"]
    limit_bytes_per_s: float | None
    flame_graph: str
    flame_note: str


def profile(
    candidate: str,
    folder: Path,
    *,
    tokens: int = 256,
    depth: int = 0,
    threads: int = 1,
    limits: Mapping[str, float] | None = None,
) -> Report:
    """Time a candidate's decode steps by stage, and write a flame graph into `folder`.

    limits: the host's, as `limits.measure` names them; None measures them, or reads them from
    the last hour. Makes the candidate when it is not there yet. Raises BadInput, WorkerFailed,
    CannotWrite and what making it raises.
    """
    if tokens < 1 or depth < 0 or threads < 1:
        raise BadInput(
            f"a profile needs at least 1 token, 1 thread and depth 0: {tokens}, {threads}, {depth}"
        )
    recipe = candidates.parse(candidate)
    run = workload.parse(f"tg{tokens}" + (f" @ d{depth}" if depth else ""))
    memory.require(recipe, [run])
    checkpoint = make.make(recipe)
    job = stages.Job(
        candidate=candidate,
        text=_text(checkpoint),
        tokens=tokens,
        depth=depth,
        threads=threads,
        cores=affinity_for(threads),
        seconds=SECONDS,
    )
    spec = workload.build(checkpoint.recipe, checkpoint.shape, run, known=checkpoint.formats)
    del checkpoint
    # there and back, so that a machine that becomes slower or faster does not favour one build
    plain, timed, again, last = (stages.run(job, timed=t) for t in (False, True, True, False))
    path = folder / f"{re.sub(r'[^a-z0-9.]+', '-', candidate)}.svg"
    note = _flame(job, path)
    near = _fits_cache(spec)
    key = f"{'cache_' if near else ''}read_bytes_per_s.{threads}"
    limit = (cached_limits() if limits is None else limits).get(key)
    found, entry, whole = split(_joined(timed, again), spec, limit)
    return Report(
        candidate=candidate,
        tokens=tokens,
        depth=depth,
        threads=threads,
        stages=found,
        entry_seconds=entry,
        timed_seconds=whole,
        plain_seconds=float(_middle(_joined(plain, last).steps)[:, 0].mean()),
        limit="last-level cache" if near else "memory",
        limit_bytes_per_s=limit,
        flame_graph="" if note else str(path),
        flame_note=note,
    )


def stage_of(call: Call) -> str:
    """The stage that a call of a decode workload is timed in."""
    if call.part == "mixer":
        return "project" if call.weight else "mix"
    return call.part


def split(
    times: stages.Times, spec: Workload, limit: float | None
) -> tuple[tuple[Stage, ...], float, float]:
    """Stages, seconds outside them and seconds of the whole step; the first two add up to it."""
    # the same tokens for every stage, so that the parts add up to the whole, which medians do not
    means = _middle(times.steps, times.laps).mean(0)
    whole, parts = float(means[0]), [float(x) for x in means[1:]]
    found = []
    for name, seconds in zip(laps.STAGES, parts, strict=True):
        calls = [call for call in spec.calls if stage_of(call) == name]
        read = sum(c.count * (c.weight_bytes + c.state_bytes) for c in calls) if calls else None
        rate = read / seconds if read and seconds else None
        kernels: dict[str, int] = {}
        for call in calls:
            kernels[call.kernel] = kernels.get(call.kernel, 0) + call.count
        found.append(
            Stage(
                name=name,
                kernels=kernels,
                seconds=seconds,
                share=seconds / whole,
                bytes_read=read,
                bytes_per_s=rate,
                of_limit=rate / limit if rate and limit else None,
                operations=sum(c.count * c.operations for c in calls) if calls else None,
            )
        )
    return tuple(found), whole - sum(parts), whole


def text(report: Report, width: int = 110) -> str:
    """The report as a table for a terminal."""
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("stage", "kernels", *NUMBERS):
        table.add_column(title, justify="right" if title in NUMBERS else "left", overflow="fold")
    for stage in report.stages:
        kernels = ", ".join(f"{count} {name}" for name, count in stage.kernels.items())
        table.add_row(stage.name, kernels or "lookup", *_numbers(stage))
    entry = report.entry_seconds
    share = f"{entry / report.timed_seconds:.1%}"
    table.add_row("entry", "from Python and back", si(entry, "s"), share, end_section=True)
    table.add_row("whole step", "timed by stage", si(report.timed_seconds, "s"), "100.0%")
    overhead = report.timed_seconds / report.plain_seconds - 1
    table.add_row("", f"ordinary build ({overhead:+.1%})", si(report.plain_seconds, "s"))
    console = Console(file=(out := io.StringIO()), width=width, highlight=False)
    threads = threads_text(report.threads)
    console.print(
        f"{report.candidate}: decode of {report.tokens} tokens from depth {report.depth}, "
        f"{threads}; per token\n",
        markup=False,
    )
    console.print(table)
    console.print()
    if report.limit_bytes_per_s:
        console.print(
            f"of limit: of the {si(report.limit_bytes_per_s, 'B/s')} that this machine reads from "
            f"its {report.limit}; what smaller caches hold may exceed it",
            markup=False,
        )
    else:
        console.print(f"of limit: unknown, `edgewise doctor` found none for {threads}")
    console.print(report.flame_note or f"flame graph: {report.flame_graph}", markup=False)
    console.print(CPU_ONLY, markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


NUMBERS = ("time/token", "share", "bytes read", "rate", "of limit", "operations")


def _numbers(stage: Stage) -> Sequence[str]:
    return (
        si(stage.seconds, "s"),
        f"{stage.share:.1%}",
        "-" if stage.bytes_read is None else bytes_of(stage.bytes_read),
        "-" if stage.bytes_per_s is None else si(stage.bytes_per_s, "B/s"),
        "-" if stage.of_limit is None else f"{stage.of_limit:.0%}",
        "-" if stage.operations is None else si(stage.operations, ""),
    )


def _middle(steps: Array, parts: Array | None = None) -> Array:
    """Rows (step, parts...) of the half of the tokens around the median step."""
    rows = steps[:, None] if parts is None else np.column_stack([steps, parts])
    order = rows[:, 0].argsort(kind="stable")
    quarter = len(order) // 4
    chosen: Array = rows[order[quarter : len(order) - quarter]]
    return chosen


def _joined(first: stages.Times, second: stages.Times) -> stages.Times:
    steps = np.concatenate([first.steps, second.steps])
    return stages.Times(steps, np.concatenate([first.laps, second.laps]))


def _flame(job: stages.Job, path: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        written = stages.write(replace(job, seconds=FLAME_SECONDS), Path(folder))
        return flame.record(stages.command(written), path, stages.environment({}))


def _fits_cache(spec: Workload) -> bool:
    """Whether the bytes of a step stay in the last-level cache."""
    first = affinity_for(1)
    last = max(machine.caches(first[0] if first else 0).values(), default=0)
    return spec.weight_bytes + spec.state_bytes <= last


def _text(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Real held-out tokens where the candidate has a corpus, else any."""
    if checkpoint.provenance and checkpoint.recipe.origin is None:
        splits = plugins.pick(plugins.corpora(), checkpoint.recipe.corpus, "corpus").load()
        return tuple(int(token) for token in splits.validation[:TEXT_TOKENS])
    return tuple(i * 7919 % checkpoint.shape.vocabulary for i in range(TEXT_TOKENS))
