"""Work + the energy meters of this machine -> joules of a run, lines of a file a worker leaves.

Counters (RAPL) are read around every timing. Instruments that give watts a few times a second say
nothing of milliseconds and take time themselves: the work is repeated for them before it is timed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import meters
from harness.energy import Meter, mean_watts
from harness.energy import meters as counters
from harness.errors import NoMeter

READINGS = 20  # of an instrument while work is repeated, and while the machine rests
LOOK_SECONDS = 0.2  # between two readings that compare instruments
SAMPLES = 3  # of a benchmark, however many processes time it


@dataclass(frozen=True, slots=True)
class Joules:
    """Of each run, idle power included; what read them; watts at rest."""

    samples: tuple[float, ...]
    method: str
    idle_watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a meter read in so many seconds, or why it read nothing."""

    meter: str
    method: str
    joules: float | None = None
    seconds: float | None = None
    reason: str = ""


def watch(name: str, file: Path, loops: int) -> Callable[[], None]:
    """Read the counters; what comes back reads them again and writes joules of a run."""
    found = _counters()
    before = [meter.read_joules() for meter, _ in found]

    def stop() -> None:
        used = sum(m.read_joules() - b for (m, _), b in zip(found, before, strict=True))
        if found:
            _write(file, name, used / loops, "rapl", sum(idle for _, idle in found))

    return stop


def repeat(name: str, file: Path, one: Callable[[], None]) -> None:
    """Repeat work under the instrument that sees most, where no counter may be read."""
    if _counters() or len(read(file).get(name, Joules((), "", 0.0)).samples) >= SAMPLES:
        return
    meter = _instrument()
    if meter is None:
        return
    seconds = READINGS / meter.rate_hz
    with suppress(NoMeter):  # somebody may plug a battery in: the timing goes on without joules
        with watched(meter) as used:
            time.sleep(seconds)
            joules, passed = used()
            idle = joules / passed
        with watched(meter) as used:
            loops, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                one()
                loops += 1
            joules, _ = used()
        _write(file, name, joules / loops, f"{meter.method} ({meter.name})", idle)


@contextmanager
def watched(meter: Meter) -> Iterator[Callable[[], tuple[float, float]]]:
    """Read the meter in the background as often as it changes; the value tells the joules so far
    and the seconds they took.

    Raises NoMeter at the end, or when asked, if a reading failed meanwhile.
    """
    lock, stop = threading.Lock(), threading.Event()
    failed: list[NoMeter] = []

    def read() -> float:
        with lock:
            if failed:
                raise failed[0]
            return meter.read_joules()

    def watch() -> None:
        while not stop.wait(1 / meter.rate_hz):
            try:
                read()
            except NoMeter as error:
                failed.append(error)
                return

    start, begin = read(), time.monotonic()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: (read() - start, time.monotonic() - begin)
    finally:
        stop.set()
        thread.join()


def drawn(found: Iterable[Meter], seconds: float) -> list[Drawn]:
    """What each meter reads meanwhile, all at once, whatever runs."""
    told, watching = [], []
    with ExitStack() as stack:
        for meter in found:
            try:
                watching.append((meter, stack.enter_context(watched(meter))))
            except NoMeter as error:
                told.append(Drawn(meter=meter.name, method=meter.method, reason=str(error)))
        time.sleep(seconds if watching else 0)
        for meter, used in watching:
            try:
                joules, passed = used()
                one = Drawn(meter=meter.name, method=meter.method, joules=joules, seconds=passed)
            except NoMeter as error:
                one = Drawn(meter=meter.name, method=meter.method, reason=str(error))
            told.append(one)
    return told


def widest(found: Iterable[Meter]) -> Meter | None:
    """Of the instruments that may be read, the one that sees most; None where there is none.

    A board's input rail draws what the rails behind it draw, so that they must not be added.
    """
    seen: list[tuple[float, Meter]] = []
    for meter in found:
        with suppress(NoMeter):
            seen.append((mean_watts(meter, LOOK_SECONDS), meter))
    return max(seen, key=lambda pair: pair[0])[1] if seen else None


def read(file: Path) -> dict[str, Joules]:
    """What workers wrote, by benchmark; watts at rest are the least that one of them saw."""
    found: dict[str, Joules] = {}
    if file.exists():
        for line in file.read_text("utf-8").splitlines():
            name, value, method, idle = json.loads(line)
            so_far = found.get(name, Joules((), method, idle))
            found[name] = Joules((*so_far.samples, value), method, min(idle, so_far.idle_watts))
    return found


def _write(file: Path, name: str, joules: float, method: str, idle: float) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps([name, joules, method, idle]) + "\n")


@cache
def _counters() -> tuple[tuple[Meter, float], ...]:
    """Those that may be read, packages and their memory only, with watts at rest."""
    found = []
    for meter in counters():
        if "psys" not in meter.name:
            with suppress(NoMeter):
                found.append((meter, mean_watts(meter, READINGS / meter.rate_hz)))
    return tuple(found)


@cache
def _instrument() -> Meter | None:
    return widest(meters.present())
