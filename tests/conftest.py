"""One temporary cache for the whole run, so that nothing of the user's is read or written."""

from __future__ import annotations

import os
import signal

import pytest

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
