"""Measured rows + devices -> projected rows, made on reading and never stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness import candidates, energy, workload
from harness.errors import BadInput
from harness.ours import ENGINE
from harness.project import project
from harness.records import Failed, Measured, Projected, Row, Workload
from harness.roofline import Fit
from targets.profile import Device, used

FIRST = "ttft"


def rows(known: Sequence[Row], devices: Iterable[Device], fit: Fit | None = None) -> list[Row]:
    """Each candidate and workload of `known` on each device that has no measured row of it.

    Quality and resident bytes are those of the measured row: the same weights would run.
    """
    there = {(row.candidate, row.workload, row.device) for row in known if row.environment}
    points: dict[tuple[str, str], Row] = {}
    first = workload.parse(FIRST)
    for row in sorted((row for row in known if row.environment), key=_worth):
        points[row.candidate, row.workload] = row
        # the first token takes a prompt of fixed length, whatever else was measured
        if (row.candidate, FIRST) not in points and row.phase != "train":
            points[row.candidate, FIRST] = replace(
                row, workload=FIRST, phase=first.phase, tokens=first.tokens, depth=first.depth
            )
    return [
        forecast(row, device, fit)
        for device in devices
        for (candidate, name), row in points.items()
        if (candidate, name, device.name) not in there
    ]


def _worth(row: Row) -> tuple[bool, bool, bool]:
    """Rows that tell most come last: with a time, in full, with a score."""
    return not isinstance(row.seconds, Failed), not row.quick, row.quality is not None


def forecast(row: Row, device: Device, fit: Fit | None = None) -> Row:
    """The row's candidate and workload on a device, at the thread count that is fastest there."""
    spec = workload_of(row)
    best, threads = _fastest(spec, device, row.engine, fit)
    return Row(
        candidate=row.candidate,
        recipe_hash=row.recipe_hash,
        checkpoint_hash=row.checkpoint_hash,
        parameters=row.parameters,
        device=device.name,
        workload=row.workload,
        phase=row.phase,
        tokens=row.tokens,
        depth=row.depth,
        threads=threads,
        engine=row.engine,
        seconds=_doubted(best, row.candidate),
        joules=energy.modelled(best, spec, device, threads),
        resident=row.resident,
        quality=row.quality,
        weight_bytes=spec.weight_bytes,
        state_bytes=spec.state_bytes,
        operations=spec.operations,
        seed=row.seed,
        quick=row.quick,
        recipe=row.recipe,
    )


def workload_of(row: Row) -> Workload:
    """What the row's run executes; its memory is what the engine counted."""
    recipe = row.recipe or candidates.parse(row.candidate)
    resident = 0
    if isinstance(row.resident, Measured):
        resident = round(row.resident.samples[0])
    run = workload.of(recipe, row.workload)
    return workload.build(recipe, candidates.final_shape(recipe), run, resident)


def point(
    candidate: str, name: str, device: Device, threads: int | None = None, fit: Fit | None = None
) -> Row:
    """A candidate that was never measured, on a device. Raises UnknownName, BadInput."""
    recipe = candidates.parse(candidate)
    run = workload.of(recipe, name)
    engine = workload.engine_of(run.phase)
    spec = workload.build(recipe, candidates.final_shape(recipe), run)
    if threads is not None and not 1 <= threads <= device.cores:
        raise BadInput(f"{device.name} has {device.cores} cores; {threads} threads do not fit")
    best, count = (
        _fastest(spec, device, engine, fit)
        if threads is None
        else (project(spec, device, threads, engine, fit), threads)
    )
    return Row(
        candidate=candidate,
        recipe_hash="",
        checkpoint_hash="",
        parameters=candidates.parameters(candidates.final_shape(recipe)),
        device=device.name,
        workload=name,
        phase=run.phase,
        tokens=run.tokens,
        depth=run.depth,
        threads=count,
        engine=engine,
        seconds=_doubted(best, candidate),
        joules=energy.modelled(best, spec, device, count),
        resident=Projected(
            value=spec.resident_bytes,
            low=spec.resident_bytes,
            high=1.2 * spec.resident_bytes,  # scratch, not counted before the engine lays it out
            model="weights, gradients, moments and what is kept"
            if run.phase == "train"
            else "formats and state",
        ),
        quality=None,
        weight_bytes=spec.weight_bytes,
        state_bytes=spec.state_bytes,
        operations=spec.operations,
    )


def settle(
    candidate: str, name: str, device: Device, fit: Fit | None = None
) -> tuple[Workload, int]:
    """What a candidate's run executes, and the thread count that is fastest there."""
    recipe = candidates.parse(candidate)
    run = workload.of(recipe, name)
    spec = workload.build(recipe, candidates.final_shape(recipe), run)
    return spec, _fastest(spec, device, ENGINE, fit)[1]


def _doubted(seconds: Projected | Failed, candidate: str) -> Projected | Failed:
    """With what the candidate itself leaves to doubt; its interval is the model's."""
    if isinstance(seconds, Failed):
        return seconds
    return replace(seconds, flags=(*seconds.flags, *candidates.doubts(candidate)))


def _fastest(
    spec: Workload, device: Device, engine: str, fit: Fit | None
) -> tuple[Projected | Failed, int]:
    """On whichever count of threads is projected to be fastest."""
    found = []
    for threads in counts(device):
        seconds = project(spec, device, threads, engine, fit)
        if isinstance(seconds, Failed):
            return seconds, threads
        found.append((seconds, threads))
    return min(found, key=lambda pair: pair[0].value)


def counts(device: Device) -> list[int]:
    """Threads worth trying: one, those of the fastest cluster, all cores."""
    return sorted({1, round(used(device, 1)[0][0].count.value), device.cores})
