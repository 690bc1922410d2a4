"""Runs on the emulated core, without PyTorch: `guest.py FOLDER NAME ...`, a line of JSON a result.

A line says which case begins, then what each of its passes found: "" when it was right.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from harness import checkpoint as checkpoints
from harness import plugins
from harness.engines.numba import session as engine
from harness.verify import DEPTH_FACTOR, compare
from tests import contract
from tests.contract import settled

PREFILL = 13  # tokens read at once; the others come one by one


def main(folder: Path, names: list[str]) -> None:
    for name in names:
        case = json.loads((folder / f"{name}.json").read_text("utf-8"))
        say(begin=name)
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            arrays = dict(file)
        passes = kernel_passes if case["kind"] == "kernel" else engine_passes
        found = {label: attempt(check) for label, check in passes(folder, case, arrays)}
        say(end=name, found=found)


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def attempt(check: Callable[[], object]) -> str:
    """Why a pass failed, in one line, or ""."""
    try:
        check()
    except Exception as error:  # whatever it is, the other passes go on
        lines = str(error).strip().splitlines() or ["no message"]
        return f"{type(error).__name__}: {lines[0]}"
    return ""


def kernel_passes(
    folder: Path, case: dict, arrays: dict[str, np.ndarray]
) -> Iterator[tuple[str, Callable[[], object]]]:
    kernel = plugins.kernel_specs()[case["name"]]

    def agrees() -> None:
        for i, run in enumerate(case["runs"]):
            given = [arrays[f"{i}.in.{j}"] for j in range(run["inputs"])]
            right = [arrays[f"{i}.out.{j}"] for j in range(run["outputs"])]
            compare(kernel, run["sizes"], given, right)

    def each(check: Callable[..., object], *values: int, **chosen: int) -> Callable[[], None]:
        def all_of_them() -> None:
            for value in values:
                check(kernel, settled(kernel, value, **chosen))

        return all_of_them

    yield "agrees", agrees
    yield "writes", each(contract.writes_only_what_it_declares, 1, 7, 33, 64)
    yield "scratch", each(contract.forgets_what_was_there, 33)
    yield "spans", each(contract.shares_in_spans, 7, 64)
    if kernel.nan == "propagates":
        yield "nan", each(contract.hands_on_a_nan, 7, 33, n=3)


def engine_passes(
    folder: Path, case: dict, arrays: dict[str, np.ndarray]
) -> Iterator[tuple[str, Callable[[], object]]]:
    checkpoint = checkpoints.load(folder / f"{case['name']}.safetensors")
    tokens, right = arrays["tokens"], arrays["logits"]
    seen: dict[str, np.ndarray] = {}

    def logits(threads: int, prefill: int) -> np.ndarray:
        with engine.open_session(checkpoint, room=tokens.size, threads=threads) as session:
            found = [engine.feed(session, tokens[:prefill], every=True)] if prefill else []
            steps = [engine.step(session, int(t))[None].copy() for t in tokens[prefill:]]
        return np.concatenate(found + steps)

    def close(found: np.ndarray, wanted: np.ndarray, allowed: float) -> None:
        error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        assert error <= allowed, f"off by {error:.1e} of the largest logit, allowed {allowed:.0e}"

    def prefill() -> None:
        seen["prefill"] = logits(1, tokens.size)
        close(seen["prefill"], right, DEPTH_FACTOR * case["rtol"])

    def steps() -> None:
        close(logits(1, 0), seen["prefill"], 1e-4)

    def threads() -> None:
        alone, together = logits(1, PREFILL), logits(2, PREFILL)
        assert alone.tobytes() == together.tobytes(), "two threads give other bits than one"

    yield "prefill", prefill
    yield "steps", steps
    yield "threads", threads


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
