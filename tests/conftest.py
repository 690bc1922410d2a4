"""What all tests share: a temporary cache, so that nothing of the user's is touched, and a text."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.corpora import tinyshakespeare
from tests import plays

SHARED = Path(__file__).parents[2] / "shared" / "data"

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Checkpoints and compiled plans; shared by the run, so that each plan compiles once."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("EDGEWISE_CACHE")
    os.environ["EDGEWISE_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["EDGEWISE_CACHE"]
    else:
        os.environ["EDGEWISE_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def text():
    """The real plays where they are at hand, made-up ones otherwise; nothing is fetched."""
    with pytest.MonkeyPatch.context() as patch:
        if "EDGEWISE_DATA" in os.environ or SHARED.is_dir():
            patch.setenv("EDGEWISE_DATA", os.environ.get("EDGEWISE_DATA", str(SHARED)))
        else:
            patch.setattr(tinyshakespeare, "load", plays.load)
        yield
