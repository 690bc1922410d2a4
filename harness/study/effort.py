"""Trials -> tables of what was tried and what came of it: rates, orders, steps, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.study import claims, grid, plan
from harness.study.frame import Ranking, Study, Trial, Tuning
from harness.study.standings import Standing, difference


def tuning(study: Study, trials: Mapping[str, Trial]) -> str:
    """Each side's grid of learning rates, the best of it, and the rates its arms use."""
    parts = ["# Learning rates: the grid, on a split that nothing is reported on"]
    for one in study.tuning:
        heads = ["learning rate", "score", "seeds", ""]
        known = _grid(one, trials)
        best = min(known, key=lambda rate: known[rate].value or 0.0) if known else None
        lines = [
            [f"{r:g}", grid.score(s), str(s.seeds), "best" if r == best else ""]
            for r, s in known.items()
        ]
        seeds = len(plan.seeds(one.seeds))
        parts.append(
            f"## {one.name}: `{one.candidate}` on {one.corpus}, {len(one.rates)} rates, "
            f"{seeds} seed{'s' if seeds > 1 else ''}"
        )
        parts.append(grid.table(heads, lines))
        parts.append(_used(study, one, best))
    return grid.page(parts)


def rankings(study: Study, found: Sequence[Standing]) -> str:
    """Arms in the order that was published, with what was found here."""
    parts = ["# Ablations against their published order"]
    for ranking in study.ranking:
        parts.append(f"## {ranking.title}")
        parts.append(_ranking(ranking, found))
        parts.append(f"Published order: {ranking.source}.")
    return grid.page(parts)


def steps(found: Sequence[Standing]) -> str:
    """What each step adds to the score of the same weights, and what it saves."""
    heads = ["step", "arm", "added", "verdict", "seeds", "resident", "parameters", "tuning tokens"]
    plain = {(p.arm, p.protocol): p for p in found if not p.step}
    parts = ["# What a step costs and saves"]
    for task in dict.fromkeys(p.task for p in found):
        lines = []
        for point in sorted((p for p in found if p.step and p.task == task), key=lambda p: p.step):
            base = plain.get((point.arm, point.protocol))
            if base is None:
                continue
            known = difference(point, base)
            share = point.trial.resident_bytes / max(1, base.trial.resident_bytes)
            lines.append(
                [
                    f"`{point.step}`",
                    f"`{point.arm}`",
                    grid.change(known),
                    grid.verdict(known, point.better),
                    str(known.seeds),
                    f"{share:.0%}",
                    f"{point.trial.parameters / max(1, base.trial.parameters):.0%}",
                    f"{point.trial.finetuning_tokens + point.trial.teacher_tokens:,}",
                ]
            )
        if lines:
            parts += [f"## {task}", grid.table(heads, lines)]
    parts.append(
        "Added: to the score of the very weights that the step began with, paired by seed. "
        "Resident bytes and parameters: of theirs. Tuning tokens: of fine-tuning, and of a "
        "teacher's training."
    )
    return grid.page(parts)


def losses(study: Study, found: Sequence[Standing]) -> str:
    """Every comparison at equal task, step and protocol in which the reference is the better."""
    heads = ["arm", "against", "task", "protocol", "difference", "verdict"]
    lost, open_, won = [], [], 0
    for point in found:
        for other in found:
            alike = (point.task, point.protocol, point.step) == (
                other.task,
                other.protocol,
                other.step,
            )
            if point.side == study.reference or other.side != study.reference or not alike:
                continue
            known = difference(point, other)
            verdict = grid.verdict(known, point.better)
            line = [f"`{point.name}`", f"`{other.name}`", point.task, point.protocol]
            line += [grid.change(known), verdict]
            if verdict == "worse":
                lost.append(line)
            elif verdict == "unresolved":
                open_.append(line)
            else:
                won += 1
    return grid.page(
        [
            f"# Where {study.reference} wins",
            f"Of {len(lost) + len(open_) + won} comparisons at equal task, step and protocol, "
            f"{study.reference} is better in {len(lost)}, worse in {won}; {len(open_)} are "
            "unresolved.",
            grid.table(heads, lost) if lost else "None.",
            "## Unresolved",
            grid.table(heads, open_) if open_ else "None.",
        ]
    )


def _grid(one: Tuning, trials: Mapping[str, Trial]) -> dict[float, claims.Estimate]:
    found = {}
    for rate in one.rates:
        values = []
        for seed in plan.seeds(one.seeds):
            trial = trials.get(plan.key(plan.tuning_point(one, rate, seed)))
            value = claims.figure(trial, "") if trial else None
            values += [] if value is None else [value]
        if values:
            found[rate] = claims.interval(values)
    return found


def _used(study: Study, one: Tuning, best: float | None) -> str:
    """What the arms of this side train with, and whether the grid says so too."""
    names: dict[float, list[str]] = {}
    for arm in study.arm:
        if plan.tuning_of(study, arm) == one:
            names.setdefault(plan.recipe(arm, "", 0).learning_rate, []).append(f"`{arm.name}`")
    said = [
        f"{rate:g} ({'the best of the grid' if rate == best else 'NOT the best of the grid'}): "
        + ", ".join(arms)
        for rate, arms in names.items()
    ]
    return "Used by its arms: " + ("; ".join(said) or "none") + "."


def _ranking(ranking: Ranking, found: Sequence[Standing]) -> str:
    plain = {p.arm: p for p in found if not p.step}
    known = [plain[name] for name in ranking.arms if name in plain]
    here = sorted(known, key=lambda p: p.better * (p.score.value or 0.0))
    heads = ["published", "arm", "score", "rank here", "against the one before", "verdict"]
    lines = []
    for place, point in enumerate(known):
        step = difference(point, known[place - 1]) if place else None
        lines.append(
            [
                str(place + 1),
                f"`{point.arm}`",
                grid.score(point.score),
                str(here.index(point) + 1),
                grid.change(step) if step else "-",
                grid.verdict(step, point.better) if step else "-",
            ]
        )
    return grid.table(heads, lines)
