"""A decode step behind 8192 tokens of context: ours against llama.cpp on the very same weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.peers import twins
from harness.peers.frame import Cell, Group, Setup
from harness.peers.limit import Reader, reader
from harness.peers.rounds import faster, rounds, share

TYPES = {"f16": "F16", "int8": "Q8_0"}  # of the cache, here and in llama.cpp
BAR, LIMIT_BAR = ">= 1.6", ">= 0.85"
STEPS = 8  # tokens of a turn


@dataclass(frozen=True, slots=True)
class Case:
    size: str
    depth: int
    cache: str
    threads: int

    @property
    def candidate(self) -> str:
        return f"attention:{self.size}@int4+kv{self.cache}"

    @property
    def what(self) -> str:
        return f"decode {self.size} int4 at depth {self.depth}, {self.cache} cache"

    @property
    def name(self) -> str:
        return f"{self.what} against {TYPES[self.cache]}, {self.threads}t"

    @property
    def limit(self) -> str:
        return f"{self.what} of the read limit, {self.threads}t"


def cases(setup: Setup) -> list[Case]:
    size, depth = ("17m", 512) if setup.quick else ("110m", 8192)
    return [Case(size, depth, cache, threads) for cache in TYPES for threads in setup.threads]


def plan(setup: Setup) -> Mapping[str, str]:
    planned: dict[str, str] = {}
    for case in cases(setup):
        planned[case.name] = BAR
        if twins.outgrows_caches(_bytes(case), setup):
            planned[case.limit] = LIMIT_BAR
    return planned


def cells(setup: Setup) -> Iterator[Cell]:
    readers = {threads: reader(setup, threads) for threads in setup.threads}
    for candidate in dict.fromkeys(case.candidate for case in cases(setup)):
        with twins.exported(candidate) as model:
            for case in cases(setup):
                if case.candidate == candidate:
                    setup.say(case.name)
                    yield from _measure(case, model, setup, readers[case.threads])


def _measure(case: Case, model: twins.Exported, setup: Setup, limit: Reader) -> Iterator[Cell]:
    with twins.opened(model, setup, case.threads, room=case.depth + STEPS) as both:
        twins.fill(both.players, both.vocabulary, case.depth)
        sides = twins.decode(both.players, both.vocabulary, case.depth, STEPS)
        samples = rounds({**sides, "limit": limit.side}, setup.rounds)
        note = f"{STEPS} tokens a turn; llama.cpp: {both.chosen}"
    yield faster(case.name, samples, bar=BAR, theirs=("llama.cpp",), note=note, headline=True)
    size = _bytes(case)
    if twins.outgrows_caches(size, setup):
        yield share(
            case.limit,
            samples,
            amount=size,
            limit_amount=limit.amount,
            bar=LIMIT_BAR,
            note="weights, scales, keys and values of the whole step; limit of the same rounds",
        )


def _bytes(case: Case) -> int:
    """What one step reads: weights and scales, keys and values."""
    step = twins.read_in_a_step(case.candidate, case.depth)
    return step.weight_bytes + step.state_bytes


SPEC = Group(
    name="llama_depth",
    summary="A decode step behind 8192 tokens, against llama.cpp",
    plan=plan,
    cells=cells,
    needs=("llama_cpp", "gguf"),
    peers=("numba", "llama_cpp"),
    source="llama-bench's tg @ d8192",
)
