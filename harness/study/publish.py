"""Trials -> the published files of a study: claims, tables, figures, a page that answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import store
from harness.study import answer, claims, effort, figures, flat, tables
from harness.study.frame import Study, Trial
from harness.study.standings import standings


@dataclass(frozen=True, slots=True)
class Published:
    """What was written, what had to be left out, and the sentences of the answer."""

    paths: tuple[Path, ...]
    missed: tuple[str, ...]
    answer: tuple[str, ...]


def publish(
    study: Study, trials: Mapping[str, Trial], folder: Path, command: str, devices: Path | None
) -> Published:
    """Write everything that the trials allow."""
    found = standings(study, trials, devices)
    verdicts = claims.verdicts(study, trials)
    texts = {
        "summary.csv": claims.summary(verdicts),
        "trials.csv": flat.as_csv(study, trials),
        "tables/tasks.md": tables.tasks(study, found),
        "tables/equal_parameters.md": tables.equal_parameters(study, found),
        "tables/equal_bytes.md": tables.equal_bytes(study, found),
        "tables/equal_time_and_energy.md": tables.equal_cost(study, found),
        "tables/what_a_step_costs.md": effort.steps(found),
        "tables/learning_rates.md": effort.tuning(study, trials),
        "tables/ablations.md": effort.rankings(study, found),
        "tables/where_the_reference_wins.md": effort.losses(study, found),
    }
    paths = [folder / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        store.write_bytes(path, text.encode())
    drawn, missed = figures.figures(study, found, folder / "figures")
    relative = [path.relative_to(folder) for path in (*paths, *drawn)]
    text = answer.page(study, trials, tables.per_device(study, found), relative, command)
    page = folder / "README.md"
    store.write_bytes(page, text.encode())
    said = answer.lines(study, trials, verdicts)
    return Published((*paths, *drawn, page), tuple(missed), tuple(said))
