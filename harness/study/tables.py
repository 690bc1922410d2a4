"""Standings -> the tables of a study, in Markdown: by task, and at equal budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from harness.study import grid
from harness.study.frame import Study
from harness.study.standings import Standing, best_within, difference, front, mean
from harness.table import si

EQUAL = 0.02  # parameters within this of each other count as equal
Cost = Callable[[Standing], float | None]


def tasks(study: Study, found: Sequence[Standing]) -> str:
    """Every arm and step by task and protocol, best first."""
    parts = ["# Every arm"]
    heads = ["arm", "candidate", "score", "seeds", "parameters", "tokens", "learning rate"]
    heads += ["resident KiB", *(f"{d}: s, J a token" for d in study.devices)]
    for (task, protocol), group in _groups(found):
        best = sorted(group, key=lambda p: p.better * mean(p))
        parts.append(f"## {task}, {protocol} ({best[0].metric}, {_sense(best[0])})")
        parts.append(grid.table(heads, (_line(study, point) for point in best)))
    parts.append(f"{NOTE}")
    return grid.page(parts)


def equal_parameters(study: Study, found: Sequence[Standing]) -> str:
    """Each arm against the reference's arm of the same task, tokens and parameters."""
    heads = ["arm", "against", "difference", "verdict", "seeds", "parameters", "theirs", "tokens"]
    parts = ["# Equal parameters and training tokens"]
    for (task, protocol), group in _groups(found):
        plain = [p for p in group if not p.step]
        theirs = [p for p in plain if p.side == study.reference]
        lines = [
            _against(point, other)
            for place, other in enumerate(theirs)
            for point in plain
            if point not in theirs[: place + 1] and _equal(point, other)
        ]
        if lines:
            parts += [f"## {task}, {protocol} ({plain[0].metric})", grid.table(heads, lines)]
    parts.append(f"Parameters within {EQUAL:.0%}. {DIFFERENCE}")
    return grid.page(parts)


def equal_bytes(study: Study, found: Sequence[Standing]) -> str:
    """The best of each side within the resident bytes of each point on the reference's front."""
    parts = ["# Equal resident bytes", *_budgets(study, found, resident, "KiB", grid.kib)]
    parts.append(f"Resident: weights, state and scratch as the engine laid them out. {WITHIN}")
    return grid.page(parts)


def equal_cost(study: Study, found: Sequence[Standing]) -> str:
    """The same within the time, and within the energy, of a token on each device."""
    parts = ["# Equal time and energy per token, projected"]
    for device in study.devices:
        for what, unit in (("seconds", "s"), ("joules", "J")):
            lines = _budgets(study, found, cost_of(device, what), unit, _amount)
            if lines:
                parts += [f"# {device}: {what} a token (projected)", *lines]
    parts.append(f"Every time and energy is projected by the device's profile. {WITHIN}")
    return grid.page(parts)


def per_device(study: Study, found: Sequence[Standing]) -> str:
    """Of the first task: within the time of the reference's fastest and of its best point, the
    best of everything else, with the energy of both."""
    heads = ["device", "within", study.reference, "score", "best other", "its score", "difference"]
    heads += ["verdict", "energy"]
    _, points = next(iter(_groups(found)), (("", ""), []))
    lines = []
    for device in study.devices:
        seconds, joules = cost_of(device, "seconds"), cost_of(device, "joules")
        theirs = front([p for p in points if p.side == study.reference], seconds)
        others = [p for p in points if p.side != study.reference]
        for point in dict.fromkeys((*theirs[:1], *theirs[-1:])):
            best = best_within(others, seconds, seconds(point) or 0.0)
            cells = [device, f"~{si(seconds(point) or 0.0, 's')}", f"`{point.name}`"]
            cells.append(grid.score(point.score))
            if best is None:
                lines.append([*cells, "nothing fits", "-", "-", "-", "-"])
                continue
            known = difference(best, point)
            cells += [f"`{best.name}`", grid.score(best.score), grid.change(known)]
            ours, other = joules(best), joules(point)
            share = f"~{ours / other:.2f} times" if ours and other else "-"
            lines.append([*cells, grid.verdict(known, point.better), share])
    return grid.table(heads, lines)


def resident(point: Standing) -> float:
    return float(point.trial.resident_bytes)


def cost_of(device: str, what: str) -> Cost:
    """Seconds or joules of a token on a device."""

    def read(point: Standing) -> float | None:
        known = point.costs.get(device)
        reading = None if known is None else known.seconds if what == "seconds" else known.joules
        return None if reading is None else reading.value

    return read


def _budgets(
    study: Study, found: Sequence[Standing], cost: Cost, unit: str, show: Callable[[float], str]
) -> list[str]:
    heads = [f"budget [{unit}]", study.reference, "score", "other side", "its score"]
    heads += ["difference", "verdict"]
    parts = []
    first = {point.task: point.protocol for point in reversed(found)}
    for (task, protocol), points in _groups(found):
        if protocol != first[task]:
            continue  # the same weights once more
        theirs = front([p for p in points if p.side == study.reference], cost)
        sides = sorted({p.side for p in points} - {study.reference})
        lines = []
        for point in theirs:
            budget = cost(point) or 0.0
            for side in sides:
                best = best_within([p for p in points if p.side == side], cost, budget)
                shown = [show(budget), f"`{point.name}`", grid.score(point.score)]
                if best is None:
                    lines.append([*shown, f"no {side} fits", "-", "-", "-"])
                    continue
                known = difference(best, point)
                shown += [f"`{best.name}`", grid.score(best.score), grid.change(known)]
                lines.append([*shown, grid.verdict(known, point.better)])
        if lines:
            parts += [f"## {task}, {protocol} ({points[0].metric})", grid.table(heads, lines)]
    return parts


def _groups(found: Iterable[Standing]) -> Iterable[tuple[tuple[str, str], list[Standing]]]:
    """By task and protocol, in the order of the study."""
    order = {key: i for i, key in enumerate(dict.fromkeys((p.task, p.protocol) for p in found))}
    ordered = sorted(found, key=lambda p: order[p.task, p.protocol])
    for key, group in groupby(ordered, key=lambda p: (p.task, p.protocol)):
        yield key, list(group)


def _line(study: Study, point: Standing) -> list[str]:
    trial, costs = point.trial, [point.costs.get(device) for device in study.devices]
    tokens = trial.tokens + trial.finetuning_tokens
    return [
        f"`{point.name}`",
        f"`{trial.recipe.name}`",
        grid.score(point.score),
        str(len(point.by_seed)),
        f"{trial.parameters:,}",
        f"{tokens:,}" + (f" + {trial.teacher_tokens:,} of teacher" if trial.teacher else ""),
        f"{trial.learning_rate:g}",
        grid.kib(trial.resident_bytes),
        *(f"{grid.cost(c.seconds, 's')}, {grid.cost(c.joules, 'J')}" if c else "-" for c in costs),
    ]


def _against(point: Standing, other: Standing) -> list[str]:
    known = difference(point, other)
    return [
        f"`{point.name}`",
        f"`{other.name}`",
        grid.change(known),
        grid.verdict(known, point.better),
        str(known.seeds),
        f"{point.trial.parameters:,}",
        f"{other.trial.parameters:,}",
        f"{point.trial.tokens:,}",
    ]


def _equal(one: Standing, other: Standing) -> bool:
    ratio = one.trial.parameters / max(1, other.trial.parameters)
    return abs(ratio - 1) <= EQUAL and one.trial.tokens == other.trial.tokens


def _sense(point: Standing) -> str:
    return "less is better" if point.better > 0 else "more is better"


def _amount(value: float) -> str:
    return f"{value:.3g}"


DIFFERENCE = (
    "A difference is paired by seed and stands with its 95 % interval (Student's t); it is better "
    "or worse where the whole interval is, else unresolved."
)
WITHIN = (
    "A budget is what a point on the reference's front takes; beside it stands the best of the "
    f"other side within that. {DIFFERENCE}"
)
NOTE = (
    "Score: mean over seeds ± half of its 95 % interval, of the packed weights through the engine "
    "on all of the held-out text. Time and energy (`~`) are projected, of decoding from an empty "
    "context on the CPU at the thread count that is fastest. Tokens: of training and fine-tuning."
)
