"""Measure one group in this process: `python -m harness.peers.worker JOB`, one JSON object a line.

What a library prints goes to stderr, so that it cannot look like an answer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeAlias

from harness import plugins
from harness.errors import HarnessError
from harness.peers import groups
from harness.peers.frame import Group, Setup, failed

Tell: TypeAlias = Callable[[dict[str, Any]], None]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    job = json.loads(sys.argv[1])
    setup = Setup(
        threads=tuple(job["threads"]),
        cpus=tuple(job["cpus"]),
        rounds=job["rounds"],
        quick=job["quick"],
        say=lambda text: tell({"say": text}),
    )
    measure(plugins.pick(groups.every(), job["group"], "group"), setup, tell)


def measure(group: Group, setup: Setup, tell: Tell) -> None:
    """Tell every cell of the group's plan, those that could not be measured with the reason."""
    plan = dict(group.plan(setup))
    tell({"plan": plan})
    reason = missing(group)
    if not reason:
        tell({"peers": {name: about(name) for name in group.peers}})
        reason = _measure(group, setup, plan, tell)
    for name, bar in plan.items():
        tell({"cell": asdict(failed(name, bar, reason or "the group did not measure it"))})
    tell({"done": True})


def _measure(group: Group, setup: Setup, plan: dict[str, str], tell: Tell) -> str:
    """Why the group ended early, or ""; cells that were measured leave the plan."""
    try:
        for cell in group.cells(setup):
            bar = plan.pop(cell.cell, None)
            if bar is None or bar != cell.bar:
                return f"{group.name} made a cell {cell.cell!r} {cell.bar!r} that it did not plan"
            tell({"cell": asdict(cell)})
    except HarnessError as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    return ""


def missing(group: Group) -> str:
    """Which packages a group lacks here, in words, or ""."""
    absent = [name for name in group.needs if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}; `nox -s peers` installs it" if absent else ""


def about(name: str) -> str:
    """What an engine says of its version and build; that it is absent, if it is."""
    engine = plugins.pick(plugins.engines(), name, "engine")
    if absent := [p for p in engine.packages if importlib.util.find_spec(p) is None]:
        return f"not installed: {', '.join(absent)}"
    return engine.about()


if __name__ == "__main__":
    main()
