"""Names and sizes of language models -> what a token needs of them; see calibration/models.toml."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import numpy as np

from harness import roofline
from harness.errors import BadInput

LIMITS = {"params_b": (1e-6, 1e5), "weight_bytes": (1e3, 1e15)}  # of what a row states


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a token needs of a language model [10^9 parameters]; see calibration/models.toml."""

    layers: float
    width: float
    kv: float
    streamed: float
    head: float
    total: float
    known: bool


def model(name: str, parameters: float, notes: list[str]) -> Model:
    """By name; an unknown one is like a Llama of its size. Raises BadInput without any size."""
    wanted = re.sub(r"[_ ]+", "-", name.strip().lower())
    family = re.split(r"[-\d]", wanted)[0]
    for pattern, numbers in _tables()["model"].items():
        # llama-bench says but "llama 3B" and the number of parameters
        alike = family and pattern.startswith(family) and parameters > 0
        same = alike and abs(numbers[-1] / parameters - 1) < 0.02
        if fnmatchcase(wanted, pattern) or (same and re.fullmatch(r"[a-z]+\d*-[\d.]+[bm]", wanted)):
            layers, width, kv, streamed, head, total = numbers
            return Model(
                layers=layers, width=width, kv=kv, streamed=streamed, head=head,
                total=max(parameters or total, streamed), known=True,
            )  # fmt: skip
    stated, active = _sizes(wanted)
    total = parameters or stated
    if total <= 0:
        raise BadInput(f"model {name!r} is in no table, and neither it nor params_b gives its size")
    check("params_b", total, f"{total:g} by the name of {name!r}")
    streamed = min(active or total, total)
    sizes = np.log([0.1, 0.5, 1.5, 3.0, 7.0, 13.0, 33.0, 70.0])
    layers = float(np.interp(math.log(total), sizes, [16, 24, 26, 28, 32, 40, 60, 80]))
    width = (1e9 * streamed / (12 * layers)) ** 0.5
    notes.append(f"model {name!r} is in no table: layers and width like a Llama of its size")
    head = min(0.2 * streamed, 64e-6 * width)
    return Model(
        layers=layers, width=width, kv=width, streamed=streamed, head=head, total=total, known=False
    )


def _sizes(name: str) -> tuple[float, float]:
    """Parameters of a name such as "foo-30b-a3b": all and those in use; 0 where it has none."""
    found = [
        float(number) * (1 if unit == "b" else 1e-3)
        for number, unit in re.findall(r"(?<![a-z0-9.])e?(\d+(?:\.\d+)?)([bm])(?![a-z])", name)
    ]
    used = re.search(r"a(\d+(?:\.\d+)?)([bm])(?![a-z])", name)
    active = float(used[1]) * (1 if used[2] == "b" else 1e-3) if used else 0.0
    return (found[0] if found else 0.0), active


def bits(name: str) -> float:
    for pattern, bits in _tables()["bits"].items():
        if fnmatchcase(name, pattern):
            return float(bits)
    raise BadInput(f"no bits per weight known for format {name!r}; state weight_bytes")


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads((roofline.FOLDER / "models.toml").read_text(encoding="utf-8"))


def check(key: str, value: float, text: str) -> None:
    """Raises BadInput for what no row may state."""
    low, high = LIMITS[key]
    if not low <= value <= high:
        raise BadInput(f"{key} is {text}, must be from {low:g} to {high:g}, or blank")
