"""Gates take minutes and compare commits, so they run only when asked for:

python -m pytest tests/gates --benchmark-enable [--benchmark-autosave] [-k matvec]

The base is the commit before, or HEAD when files differ from it; EDGEWISE_GATE_BASE names another.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import gate
from harness.errors import HarnessError

REPORT = pytest.StashKey[gate.Report]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("benchmark_enable") else True


@pytest.fixture(scope="session", autouse=True)
def cache_folder() -> None:
    """The user's own cache, unlike in other tests: compiling takes longer than timing."""


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> gate.Report:
    """One job for all items that are selected, so that all share the same workers."""
    chosen = {
        item.callspec.params["item"] for item in request.session.items if hasattr(item, "callspec")
    }
    order = [item for item in gate.items() if item in chosen]
    try:
        found = gate.gate(chosen=order)
    except HarnessError as error:
        pytest.fail(str(error), pytrace=False)
    request.config.stash[REPORT] = found
    return found


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if found := config.stash.get(REPORT, None):
        terminalreporter.section("gate")
        terminalreporter.write_line(gate.table(found))
