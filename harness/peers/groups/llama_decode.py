"""A whole decode step from an empty context: ours against llama.cpp on the very same weights.

A turn is as many tokens on either side, from the first on. The read limit takes its turn in the
same rounds, since what memory delivers has spells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.peers import twins
from harness.peers.frame import Cell, Group, Setup
from harness.peers.limit import Reader, reader
from harness.peers.rounds import faster, geometric_mean, rounds, share

FORMS = ("f16", "int8g32", "int8", "int4")
# Sizes that are averaged together, and what their mean must reach.
MEANS = {
    "decode 17m, mean": (("17m",), ">= 2.4"),
    "decode 110m and 500m, mean": (("110m", "500m"), ">= 1.4"),
}
LEAST = ">= 1.1"
TURN_SECONDS = 0.08
STEPS = 4, 256  # fewest and most tokens of a turn


@dataclass(frozen=True, slots=True)
class Case:
    size: str
    form: str
    threads: int

    @property
    def candidate(self) -> str:
        return f"attention:{self.size}@{self.form}"

    @property
    def name(self) -> str:
        return f"decode {self.size} {self.form} against {twins.TYPES[self.form]}, {self.threads}t"

    @property
    def limit(self) -> str:
        return f"decode {self.size} {self.form} of the read limit, {self.threads}t"

    @property
    def limit_bar(self) -> str:
        return ">= 0.9" if self.threads == 1 else ">= 0.95"

    @property
    def counted(self) -> bool:
        """Whether a mean counts it; llama.cpp has no type with one scale a row, as int8 has."""
        return self.form != "int8"


def sizes(setup: Setup) -> tuple[str, ...]:
    return ("17m",) if setup.quick else ("17m", "110m", "500m")


def cases(setup: Setup) -> list[Case]:
    return [
        Case(size, form, threads)
        for size in sizes(setup)
        for form in FORMS
        for threads in setup.threads
    ]


def means(setup: Setup) -> dict[str, tuple[tuple[str, ...], str]]:
    return {name: mean for name, mean in MEANS.items() if set(mean[0]) <= set(sizes(setup))}


def plan(setup: Setup) -> Mapping[str, str]:
    planned: dict[str, str] = {}
    for case in cases(setup):
        planned[case.name] = LEAST
        if twins.outgrows_caches(_bytes(case), setup):
            planned[case.limit] = case.limit_bar
    return planned | {name: bar for name, (_, bar) in means(setup).items()}


def cells(setup: Setup) -> Iterator[Cell]:
    readers = {threads: reader(setup, threads) for threads in setup.threads}
    found: dict[Case, Cell] = {}
    for candidate in dict.fromkeys(case.candidate for case in cases(setup)):
        with twins.exported(candidate) as model:
            for case in cases(setup):
                if case.candidate == candidate:
                    setup.say(case.name)
                    measured = _measure(case, model, setup, readers[case.threads])
                    found[case] = measured[0]
                    yield from measured
    for name, (of, bar) in means(setup).items():
        counted = (cell for case, cell in found.items() if case.size in of and case.counted)
        yield geometric_mean(name, counted, bar)


def _measure(case: Case, model: twins.Exported, setup: Setup, limit: Reader) -> list[Cell]:
    """Against llama.cpp, then against the limit where memory is what limits."""
    with twins.opened(model, setup, case.threads, room=STEPS[1]) as both:
        few = twins.decode(both.players, both.vocabulary, 0, STEPS[0])
        slowest = max(min(side() for _ in range(3)) for side in few.values())
        steps = min(max(STEPS[0], round(TURN_SECONDS / slowest)), STEPS[1])
        sides = twins.decode(both.players, both.vocabulary, 0, steps)
        samples = rounds({**sides, "limit": limit.side}, setup.rounds)
        note = f"{steps} tokens a turn; llama.cpp: {both.chosen}"
    cell = faster(case.name, samples, bar=LEAST, theirs=("llama.cpp",), note=note)
    size = _bytes(case)
    if not twins.outgrows_caches(size, setup):
        return [cell]
    of_limit = share(
        case.limit, samples, amount=size, limit_amount=limit.amount, bar=case.limit_bar
    )
    return [cell, of_limit]


def _bytes(case: Case) -> int:
    """Weights and scales that one step reads."""
    return twins.read_in_a_step(case.candidate).weight_bytes


SPEC = Group(
    name="llama_decode",
    summary="A whole decode step, against llama.cpp",
    plan=plan,
    cells=cells,
    needs=("llama_cpp", "gguf"),
    peers=("numba", "llama_cpp"),
    source="llama-bench's tg, with the logits fetched",
)
