"""One matrix times one vector, in the shapes of models: ours against PyTorch and ONNX Runtime.

A side takes a lap over copies of its matrix. Cold laps are longer than all caches; hot ones fit
the last cache, which a lap before the timed ones fills. Rounding the activations is part of the
product on every side; those that work in float16 or bfloat16 get their vector in that type. One
call from Python does a lap of ours, or of ONNX Runtime, as a graph; PyTorch is called for each
product, which is its eager way and costs it 1 to 2 us of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from harness import limits, plugins, stats
from harness.engines.numba import linear as numba_linear
from harness.errors import HarnessError, Mismatch
from harness.peers.frame import Cell, Group, Setup, failed
from harness.peers.limit import Reader, hire, reader
from harness.peers.rounds import Side, faster, geometric_mean, ratios, rounds, timed
from harness.records import Array

# rows, columns: of 110m (output, down projection, head), and of a 7 B model
COLD = ((768, 768), (768, 2048), (32000, 768), (4096, 4096))
HOT = ((768, 768), (2048, 768))
QUICK = ((256, 512),)
FORMS = ("f32", "f16", "bf16", "int8", "int8g32", "int4")
HOT_BYTES = 6 * 2**20  # of the copies of one side, so that four sides share a cache
TURN_SECONDS = 0.004
SCREEN = 1.5  # a peer's form that is so much slower than its best one is not timed further
# of a product against float64, by norm; what rounding costs, with room
ALLOWED = {"f32": 1e-4, "f16": 5e-3, "bf16": 2e-2, "int8": 4e-2, "int8g32": 4e-2, "int4": 0.25}


Lap: TypeAlias = Callable[[], Array]  # its last product


@dataclass(frozen=True, slots=True)
class Case:
    """One cell to be: a shape, a format of ours, cold or hot, so many threads."""

    m: int
    k: int
    form: str
    cold: bool
    threads: int

    @property
    def name(self) -> str:
        where = "memory" if self.cold else "cache"
        return f"matvec {self.m}x{self.k} {self.form} from {where}, {self.threads}t"


def cases(setup: Setup) -> list[Case]:
    forms = [form for form in FORMS if form in plugins.formats()]
    shapes = [(shape, True) for shape in (QUICK if setup.quick else COLD)]
    shapes += [(shape, False) for shape in (QUICK if setup.quick else HOT)]
    return [
        Case(m, k, form, cold, threads)
        for (m, k), cold in shapes
        for form in forms
        for threads in setup.threads
    ]


def plan(setup: Setup) -> Mapping[str, str]:
    planned = {case.name: ">= 1" for case in cases(setup)}
    planned |= {f"matvec {form}, mean": "" for form in dict.fromkeys(c.form for c in cases(setup))}
    return planned | {"matvec, mean": ">= 1.5", "matvec, resolved slower": "<= 0"}


def cells(setup: Setup) -> Iterator[Cell]:
    readers = {threads: reader(setup, threads, seconds=0.02) for threads in setup.threads}
    by_form: dict[str, list[Cell]] = {}
    for case in cases(setup):
        setup.say(case.name)
        try:
            cell = _cell(case, setup, readers[case.threads])
        except HarnessError as error:
            cell = failed(case.name, ">= 1", str(error))
        by_form.setdefault(case.form, []).append(cell)
        yield cell
    for form, found in by_form.items():
        yield geometric_mean(f"matvec {form}, mean", found, "")
    everything = [cell for found in by_form.values() for cell in found]
    yield geometric_mean("matvec, mean", everything, ">= 1.5")
    slower = sum(cell.met == "no" for cell in everything)
    yield Cell(
        cell="matvec, resolved slower",
        ours=slower,
        unit="1",
        ratio=slower,
        bar="<= 0",
        met="no" if slower else "yes",
        note=f"of {len(everything)} cells; a tie within the interval is not slower",
        headline=True,
    )


def _cell(case: Case, setup: Setup, limit: Reader) -> Cell:
    rng = np.random.default_rng(case.m + case.k)
    weights = (rng.standard_normal((case.m, case.k)) * case.k**-0.5).astype(np.float32)
    x = rng.standard_normal(case.k).astype(np.float32)
    ours = _ours(case, setup, weights, x)
    try:
        want = weights.astype(np.float64) @ x
        if (error := _error(ours.lap(), want)) > ALLOWED[case.form]:
            raise Mismatch(f"our product is off by {error:.1e}, allowed {ALLOWED[case.form]:.0e}")
        laps, notes = _agreeing(_peers(case, setup, weights, x, ours.count), case, want)
        peers = _screened({name: timed(lap) for name, lap in laps.items()})
        if not peers:
            return failed(case.name, ">= 1", "; ".join(notes) or "no peer has such a form")
        sides = {name: _turn(lap) for name, lap in {"ours": ours.lap, **laps}.items()}
        sides = {name: side for name, side in sides.items() if name in ("ours", *peers)}
        if case.cold:
            sides["limit"] = limit.side
        samples = rounds(sides, setup.rounds)
    finally:
        numba_linear.close(ours)
    if case.cold:
        rates = [ours.arena_bytes / seconds for seconds in samples["ours"]]
        tops = [limit.amount / seconds for seconds in samples["limit"]]
        notes.append(f"ours reads at {ratios(rates, tops)[0]:.0%} of the limit in the same rounds")
    notes.append(f"tried: {', '.join(laps)}")
    each = {name: tuple(s / ours.count for s in taken) for name, taken in samples.items()}
    return faster(case.name, each, bar=">= 1", theirs=peers, note="; ".join(notes))


def _ours(case: Case, setup: Setup, weights: Array, x: Array) -> numba_linear.Linears:
    size = plugins.formats()[case.form].layout_bytes(case.m, case.k)
    count = -(-limits.DRAM_BYTES // size) if case.cold else max(1, HOT_BYTES // size)
    cores = setup.cpus[: case.threads]
    made = numba_linear.open_linears(case.form, weights, count, case.threads, cores)
    made.x[:] = x
    return made


def _peers(
    case: Case, setup: Setup, weights: Array, x: Array, count: int
) -> dict[str, Callable[[], Lap]]:
    """What makes a lap of each form of each peer that is like ours, and pins its threads."""
    from harness.engines.onnxruntime import linear as onnx_linear  # noqa: PLC0415
    from harness.engines.torch import linear as torch_linear  # noqa: PLC0415

    def torch(form: str) -> Lap:
        torch_linear.use(case.threads)
        return torch_linear.lap(form, torch_linear.twin(form, weights, count), x)

    def onnxruntime(form: str) -> Lap:
        return onnx_linear.lap(form, weights, count, x, case.threads)

    def start(make: Callable[[str], Lap], form: str) -> Lap:
        lap = make(form)
        lap()
        return lap

    return {
        f"{make.__name__} {form}": partial(hire, setup, case.threads, partial(start, make, form))
        for make, like in ((torch, torch_linear.LIKE), (onnxruntime, onnx_linear.LIKE))
        for form in like
        if like[form] == case.form
    }


def _agreeing(
    makers: Mapping[str, Callable[[], Lap]], case: Case, want: Array
) -> tuple[dict[str, Lap], list[str]]:
    """The peers' laps whose product is right, and what there is to say of the others."""
    laps: dict[str, Lap] = {}
    notes = []
    for name, make in makers.items():
        try:
            lap = make()
        except (RuntimeError, NotImplementedError) as problem:
            notes.append(f"{name} does not run here: {str(problem).splitlines()[0][:60]}")
            continue
        if (error := _error(lap(), want)) > ALLOWED[case.form]:
            notes.append(f"{name} is off by {error:.1e} and left out")
        else:
            laps[name] = lap
    return laps, notes


def _error(got: Array, want: Array) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def _screened(sides: Mapping[str, Side]) -> list[str]:
    """The forms that are about as fast as the fastest one, by the best of three laps."""
    best = {name: min(side(), side(), side()) for name, side in sides.items()}
    return [name for name, taken in best.items() if taken <= SCREEN * min(best.values())]


def _turn(lap: Lap) -> Side:
    """Laps of some milliseconds in all, after one that wakes threads and fills caches."""
    once = stats.median([timed(lap)() for _ in range(3)])
    side = timed(lap, max(1, round(TURN_SECONDS / once)))

    def turn() -> float:
        lap()
        return side()

    return turn


SPEC = Group(
    name="matvec",
    summary="A matrix times a vector, against PyTorch and ONNX Runtime",
    plan=plan,
    cells=cells,
    needs=("torch", "onnxruntime", "onnx"),
    peers=("numba", "torch", "onnxruntime"),
)
