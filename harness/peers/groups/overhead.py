"""What a decode call costs outside compiled code, and what compiling a plan takes.

The call is that of a model so small that Python shows. Each plan is compiled in a fresh process
with an empty cache, then loaded by another one from that cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import numpy as np

from harness import plugins, stats
from harness.engines.numba import plan as plans
from harness.engines.numba import random
from harness.engines.numba import session as engine
from harness.errors import HarnessError
from harness.peers.frame import Cell, Group, Met, Setup, verdict
from harness.peers.rounds import rounds
from harness.records import Checkpoint, Recipe, Shape

CALL_SECONDS, COLD_SECONDS, CACHED_SECONDS = 5e-6, 8.0, 1.0  # what each may take
BAR = "<= 1"  # of that
CALLS = 2000  # of a turn
CHILD = """
import sys
from harness.engines.numba import session
from harness.peers.groups.overhead import tiny
with session.open_session(tiny(*sys.argv[1:]), room=4) as opened:
    print(opened.load_seconds)
"""


def call_name(threads: int) -> str:
    return f"decode call outside compiled code, {threads}t"


def compiled(setup: Setup) -> list[tuple[str, str, str]]:
    """Mixer, ffn and format of the plans: what keeps all weights, and every ffn in int4.

    Variants of a mixer compile the same parts in another order, and sparse formats fewer.
    """
    if setup.quick:
        return [("mcsd", "dense", "int4")]
    mixers = [name for name, mixer in plugins.mixers().items() if name == mixer.folder]
    formats = [name for name, form in plugins.formats().items() if form.density == 1]
    return [(mixer, "dense", form) for mixer in mixers for form in formats] + [
        (mixer, ffn, "int4") for mixer in mixers for ffn in plugins.ffns() if ffn != "dense"
    ]


def plan_names(mixer: str, ffn: str, form: str) -> tuple[str, str]:
    whole = f"{mixer}, {ffn}, {form}"
    return f"compile {whole}", f"load {whole} from the cache"


def plan(setup: Setup) -> Mapping[str, str]:
    names = [call_name(threads) for threads in setup.threads]
    for which in compiled(setup):
        names += plan_names(*which)
    return dict.fromkeys(names, BAR)


def cells(setup: Setup) -> Iterator[Cell]:
    for threads in setup.threads:
        setup.say(call_name(threads))
        yield _call(setup, threads)
    for mixer, ffn, form in compiled(setup):
        setup.say(f"compiling {mixer}, {ffn}, {form}")
        with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
            cold, cached = (_opened(folder, mixer, ffn, form) for _ in range(2))
        first, second = plan_names(mixer, ffn, form)
        note = "both phases, one fresh process"
        yield _of_allowance(first, [cold], COLD_SECONDS, note)
        yield _of_allowance(second, [cached], CACHED_SECONDS, note)


def tiny(mixer: str, ffn: str, form: str) -> Checkpoint:
    """One layer of random weights, as narrow as a format can be."""
    shape = Shape(
        vocabulary=64, width=64, layers=1, mixers=(mixer,), ffn=ffn, hidden=64, heads=1,
        kv_heads=1, head_width=64, channels=1, context=64, group=32, tied=True,
    )  # fmt: skip
    steps = () if form == "f32" else (form,)
    return random.checkpoint(Recipe(name="overhead:tiny", shape=shape, steps=steps))


def _call(setup: Setup, threads: int) -> Cell:
    """A step as Python sees it, less the same work called from compiled code."""
    checkpoint = tiny("mcsd", "dense", "int8")
    cores = setup.cpus[:threads]
    with engine.open_session(checkpoint, room=CALLS, threads=threads, cores=cores) as session:
        enter, arrays, block = plans.load(checkpoint).enter, session.crew.arrays, session.crew.block
        again = _repeat()

        def steps() -> float:
            engine.reset(session)
            begin = time.perf_counter()
            for _ in range(CALLS):
                engine.step(session, 1)
            return (time.perf_counter() - begin) / CALLS

        def inside() -> float:
            engine.reset(session)
            begin = time.perf_counter()
            again(enter, CALLS, threads, block, *arrays)
            return (time.perf_counter() - begin) / CALLS

        samples = rounds({"step": steps, "inside": inside}, setup.rounds)
    pairs = zip(samples["step"], samples["inside"], strict=True)
    note = (
        f"{1e6 * stats.median(samples['inside']):.1f} us inside, with {threads} threads' barriers"
    )
    outside = [step - within for step, within in pairs]
    return _of_allowance(call_name(threads), outside, CALL_SECONDS, note, headline=True)


@cache
def _repeat() -> Callable[..., None]:
    from numba import njit  # noqa: PLC0415 - another group may do without

    @njit(nogil=True)
    def repeat(enter, count, threads, block, *arrays):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202
        for depth in range(count):
            enter(0, threads, block, 1, depth, 0, *arrays)

    return repeat  # type: ignore[no-any-return]


def _opened(folder: str, *which: str) -> float:
    """Seconds that opening a session spends on compiling or loading, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *which],
        env={**os.environ, "EDGEWISE_CACHE": folder},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise HarnessError(f"{', '.join(which)} could not be compiled: {last}")
    return float(done.stdout)


def _of_allowance(
    name: str, samples: list[float], allowed: float, note: str, headline: bool = False
) -> Cell:
    """Median seconds as a share of what it may take; one sample has no interval."""
    shares = [seconds / allowed for seconds in samples]
    ratio = stats.median(shares)
    low, high = (ratio, ratio) if len(shares) == 1 else stats.median_interval(shares)[:2]
    met: Met = verdict(BAR, ratio, low, high)
    return Cell(
        cell=name, ours=float(np.median(samples)), theirs=allowed, unit="s", ratio=ratio,
        low=low, high=high, bar=BAR, met=met, note=f"{note}; theirs: what it may take",
        headline=headline,
    )  # fmt: skip


SPEC = Group(
    name="overhead",
    summary="What a call costs outside compiled code, and compiling",
    plan=plan,
    cells=cells,
    peers=("numba",),
    source="harness/engines/numba",
)
