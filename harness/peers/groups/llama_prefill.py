"""A prompt of 512 tokens to its last logits: ours against llama.cpp on the very same weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.peers import twins
from harness.peers.frame import Cell, Group, Setup
from harness.peers.rounds import faster, rounds

PROMPT = 512  # llama.cpp gets it as one batch, which is its best case
FORMS = ("int8g32", "int8", "int4")
BAR = ">= 1.5"
FEWEST_ROUNDS = 7  # of a size whose turns take seconds


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
        kind = twins.TYPES[self.form]
        return f"pp{PROMPT} {self.size} {self.form} against {kind}, {self.threads}t"


def cases(setup: Setup) -> list[Case]:
    """The larger size only in the two formats that llama.cpp shares."""
    sizes = {"17m": FORMS} if setup.quick else {"110m": FORMS, "500m": ("int8g32", "int4")}
    return [
        Case(size, form, threads)
        for size, forms in sizes.items()
        for form in forms
        for threads in setup.threads
    ]


def plan(setup: Setup) -> Mapping[str, str]:
    return {case.name: BAR for case in cases(setup)}


def cells(setup: Setup) -> Iterator[Cell]:
    for candidate in dict.fromkeys(case.candidate for case in cases(setup)):
        with twins.exported(candidate) as model:
            for case in cases(setup):
                if case.candidate == candidate:
                    setup.say(case.name)
                    yield _measure(case, model, setup)


def _measure(case: Case, model: twins.Exported, setup: Setup) -> Cell:
    count = min(setup.rounds, FEWEST_ROUNDS) if case.size == "500m" else setup.rounds
    with twins.opened(model, setup, case.threads, room=PROMPT) as both:
        samples = rounds(twins.prefill(both.players, both.vocabulary, PROMPT), count)
        note = f"llama.cpp: one batch; {both.chosen}"
    return faster(case.name, samples, bar=BAR, theirs=("llama.cpp",), note=note, headline=True)


SPEC = Group(
    name="llama_prefill",
    summary="A prompt of 512 tokens, against llama.cpp",
    plan=plan,
    cells=cells,
    needs=("llama_cpp", "gguf"),
    peers=("numba", "llama_cpp"),
    source="llama-bench's pp512",
)
