"""Where tasks run: in processes of this machine, or on the workers of a cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.synchronize import Event

from harness.errors import BadInput

NO_DASK = "a cluster needs dask.distributed: pip install 'edgewise[cluster]'"


@dataclass(slots=True, eq=False)
class Crew:
    """An executor that can be had anew when a worker's death has broken it.

    width: tasks at a time; shared: workers see the disk of this process
    """

    width: int
    shared: bool
    open: Callable[[], Executor]
    executor: Executor


def renew(crew: Crew) -> None:
    crew.executor.shutdown(wait=False, cancel_futures=True)
    crew.executor = crew.open()


@contextmanager
def local(jobs: int) -> Iterator[Crew]:
    """So many fresh processes, which end at once when this one leaves or dies."""
    context = get_context("spawn")
    stop = context.Event()

    def start() -> Executor:
        return ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(stop,))

    crew = Crew(jobs, True, start, start())
    try:
        yield crew
    except BaseException:
        stop.set()  # what they do can be gone on with
        raise
    finally:
        crew.executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def cluster(address: str) -> Iterator[Crew]:
    """The workers that a scheduler at this address has. Raises BadInput."""
    try:
        import dask  # noqa: PLC0415
        from distributed import Client  # noqa: PLC0415
    except ImportError:
        raise BadInput(NO_DASK) from None
    # a teacher's weights are sent to whoever learns from it
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}):
        try:
            client = Client(address, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise BadInput(f"no scheduler answers at {address!r}: {error}") from None
        try:
            width = sum(client.nthreads().values())
            if not width:
                raise BadInput(f"the cluster at {address!r} has no workers")
            yield Crew(
                width,
                False,
                lambda: client.get_executor(pure=False),
                client.get_executor(pure=False),
            )
        finally:
            client.close()


def _begin(stop: Event) -> None:
    """In a new worker: Ctrl-C is its parent's business, whose end is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(stop,), daemon=True).start()


def _watch(stop: Event) -> None:
    parent = parent_process()
    while not stop.wait(0.5):
        if parent is not None and connection.wait([parent.sentinel], timeout=0):
            break
    os._exit(1)
