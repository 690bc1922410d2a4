"""A line as people publish it (model, format, engine, threads, context) + device -> Setting.

Blanks are filled by stated defaults, each with a note; what cannot be filled raises BadInput.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np

from harness import ours, roofline
from harness.errors import BadInput
from harness.settings import OURS, Setting, Work
from targets.profile import Device

Phase: TypeAlias = Literal["prefill", "decode"]
PROMPT, DEPTH = 256, 128  # tokens where a line does not state them
SHORT = 25  # tokens of a "short prompt"
MOST_TOKENS = 10_000_000
LIMITS = {"params_b": (1e-6, 1e5), "weight_bytes": (1e3, 1e15)}  # of what a row states
LITTLE = ("little", "gracemont", "apple_little")  # left idle where a line does not say otherwise
PHONE_THREADS = 4
HEAD_BITS = {"bitnet": 16.0}  # of the head beside layers of 1 to 2 bits; others:
HEAD_BITS_OTHERWISE = 6.6
# Kernels that llama.cpp had by when [years]: its pull requests 6414 (tiles), 9921 (repacking
# Q4_0 at load), 12332 (Q4_K)
TILED, REPACKED, REPACKED_K = 2024.3, 2024.85, 2025.25
# When its builds were tagged: (number, year)
BUILDS = (
    (1000, 2023.63), (1500, 2023.85), (2000, 2024.08), (2600, 2024.26), (3000, 2024.40),
    (3500, 2024.59), (4000, 2024.83), (4400, 2025.0), (4900, 2025.2), (5500, 2025.41),
    (6000, 2025.57), (6500, 2025.71), (7000, 2025.86), (7500, 2025.98), (8200, 2026.17),
)  # fmt: skip
COMMITS = {"14b699ec": 2024.99, "a1cfb64": 2024.7, "335acd2": 2023.6, "3891": 2024.77}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LLAMA = ("llama_2023", "llama_2024", "llama_cpp")  # generations of one engine


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One published or asked line, read: what is to be projected, and what was assumed.

    stored_bytes: of all weights, those that a token does not use too, and of keys and values
    notes: defaults that were filled in and doubts, for people
    """

    setting: Setting
    phase: Phase
    tokens: int  # of the prompt; 1 in a decode
    stored_bytes: float
    notes: tuple[str, ...]


def read(row: Mapping[str, str], device: Device) -> Line:
    """The setting of a row with the columns of published.csv. Raises BadInput."""
    notes: list[str] = []
    for key in ("context_or_n", "threads"):
        if re.search(r"\d{10}", row.get(key, "")):
            raise BadInput(f"{key} is {row[key][:20]!r}..., out of any range")
    phase = _phase(row)
    tokens, depth = _context(row.get("context_or_n", ""), phase, notes)
    if max(tokens, depth) > MOST_TOKENS:
        raise BadInput(f"context_or_n is {row['context_or_n']!r}, more than {MOST_TOKENS:,} tokens")
    threads = _threads(row.get("threads", ""), device, notes)
    engine = engine_family(row.get("engine", ""), notes)
    found = model(row.get("model", ""), _number(row, "params_b"), notes)
    work, stored = _work(row, found, engine, phase, tokens, depth, notes)
    kernel = _kernel(row.get("engine", ""), engine, next(iter(work.weights)), device)
    setting = Setting(work=work, device=device, threads=threads, engine=engine, kernel=kernel)
    return Line(
        setting=setting, phase=phase, tokens=tokens, stored_bytes=stored, notes=tuple(notes)
    )


def engine_family(name: str, notes: list[str]) -> str:
    """The family of engines; of llama.cpp the generation by build, commit or date."""
    if not name.strip():
        notes.append("engine not stated: llama.cpp of today assumed")
        return "llama_cpp"
    family = roofline.family("engine", name) or "other"
    if family == "other":
        notes.append(f"engine {name!r} is of no known family")
    year = _year(name)
    if family in LLAMA and year is not None:
        return LLAMA[(year >= 2024) + (year >= REPACKED + 0.15)]
    return family


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
    _check("params_b", total, f"{total:g} by the name of {name!r}")
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


def _phase(row: Mapping[str, str]) -> Phase:
    text, context = (row.get(key, "").strip().lower() for key in ("phase", "context_or_n"))
    if text.startswith(("prefill", "pp", "prompt")) or (not text and context.startswith("pp")):
        return "prefill"
    if text.startswith(("decode", "tg", "gen", "eval")) or not text:
        return "decode"
    raise BadInput(f"phase is {row['phase']!r}, must be decode or prefill")


def _context(text: str, phase: Phase, notes: list[str]) -> tuple[int, int]:
    """Tokens of the prompt, or 1, and the depth of the (mean) token before which they come."""
    text = text.strip().lower()
    at = re.search(r"@\s*d?\s*(\d+)", text)
    context = re.search(r"(?:context|ctx)\D{0,3}(\d+)\s*(k?)", text)
    depth = int(at[1]) if at else 0
    if context:
        depth = int(context[1]) * (1024 if context[2] else 1)
    prompt, made = re.search(r"pp\s*(\d+)", text), re.search(r"tg\s*(\d+)", text)
    plain = int(text) if text.isdecimal() else 0
    if phase == "prefill":
        if prompt or plain:
            return max(1, int(prompt[1]) if prompt else plain), depth
        if "short" in text:
            return SHORT, depth
        notes.append(f"prompt not stated: {PROMPT} tokens assumed")
        return PROMPT, depth
    if both := re.search(r"in(\d+)/out(\d+)", text):
        return 1, int(both[1]) + int(both[2]) // 2
    if made or plain:
        return 1, depth + (int(made[1]) if made else plain) // 2
    if not context and not at:
        notes.append(f"depth not stated: {DEPTH} tokens assumed")
    return 1, depth if context or at else DEPTH


def _threads(text: str, device: Device, notes: list[str]) -> int:
    text = text.strip().lower().removesuffix(".0")
    if text.isdecimal() and int(text) > 0:
        if int(text) > 4 * device.cores:
            raise BadInput(f"{text} threads on the {device.cores} cores of {device.name}")
        return int(text)
    if "cores/2" in text:
        return max(1, device.cores // 2)
    if text in ("all", "all cores", "max"):
        return device.cores
    if text not in ("", "not stated", "nan", "none", "default"):
        raise BadInput(f"threads is {text!r}, must be a number of threads, or blank")
    big = [c for c in device.clusters if roofline.family("core", c.core) not in LITTLE]
    cores = sum(int(c.count.value) for c in big or device.clusters)
    count = min(cores, PHONE_THREADS) if device.category == "phone" else cores
    notes.append(f"threads not stated: {count} assumed")
    return count


def _work(
    row: Mapping[str, str],
    found: Model,
    engine: str,
    phase: Phase,
    tokens: int,
    depth: int,
    notes: list[str],
) -> tuple[Work, float]:
    """Of one step, and the bytes stored for it; keys and values are float16, as in every engine
    of the table. A model that keeps none attends to nothing."""
    form = row.get("weights_format", "").strip().lower().removeprefix("ud-")
    if not form:
        form = "q4_k_m"
        notes.append("format not stated: Q4_K_M assumed")
    family = roofline.family("format", form)
    stated = _number(row, "weight_bytes")
    if family is None:
        notes.append(f"format {form!r} is of no known family")
        if not stated:
            raise BadInput(f"no bits per weight known for format {form!r}; state weight_bytes")
    head_form, weight_bytes = form, 1e9 * found.streamed
    if family == "ternary":
        bits = HEAD_BITS.get(engine, HEAD_BITS_OTHERWISE)
        head_form = "f16" if bits == 16 else "q6_k"
    if stated:
        # What is not streamed is an embedding; those are stored like the weights or wider.
        weight_bytes = stated * found.streamed / found.total
    elif family == "ternary":
        layers = found.streamed - found.head
        weight_bytes = 1e9 * (layers * _bits(form) + found.head * bits) / 8
    else:
        weight_bytes *= _bits(form) / 8
    new = tokens if phase == "prefill" else 1
    seen = depth + (tokens / 2 if phase == "prefill" else 0)
    state = 2 * found.layers * found.kv * seen
    weights = {form: 1e9 * (found.streamed - found.head) * new}
    weights[head_form] = weights.get(head_form, 0.0) + 1e9 * found.head
    work = Work(
        phase=phase,
        tokens=new,
        layers=round(found.layers),
        weights=weights,
        others=2 * found.layers * found.width * seen * new if found.kv else 0.0,
        streamed_bytes=weight_bytes + state,
        resident_bytes=weight_bytes + state,
    )
    if engine == OURS:
        counts = ours.totals(weights, work.others, found.layers, found.width, new)
        work = replace(work, counts=counts)
    return work, weight_bytes * found.total / found.streamed + state


def _number(row: Mapping[str, str], key: str) -> float:
    text = (row.get(key) or "").strip()
    if not text or text.lower() == "nan":
        return 0.0
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{key} is {text!r}, must be a number, or blank") from None
    _check(key, value, repr(text))
    return value


def _check(key: str, value: float, text: str) -> None:
    low, high = LIMITS[key]
    if not low <= value <= high:
        raise BadInput(f"{key} is {text}, must be from {low:g} to {high:g}, or blank")


def _bits(name: str) -> float:
    for pattern, bits in _tables()["bits"].items():
        if fnmatchcase(name, pattern):
            return float(bits)
    raise BadInput(f"no bits per weight known for format {name!r}; state weight_bytes")


def _kernel(name: str, family: str, form: str, device: Device) -> str:
    """How this engine, then, multiplied matrices of this format on this machine."""
    name = name.lower()
    arm = "neon" in device.clusters[0].isa
    if family in ("mnn", "executorch", "litert", "cactus"):
        return "mnn" if family == "mnn" else "xnnpack"
    if family == "ik_llama":
        return "repacked" if "-rtr" in name else "tiled"
    if "llamafile-0.6" in name or family in ("tmac", "bitnet", "rwkv", "llama_2023"):
        return "vector"
    small = form.startswith(("q4_0", "iq4_nl"))
    if "q4_0_4" in form or "q4_0_8" in form:
        return "repacked"
    year = _year(name)
    if year is None:
        year = 2025.5
    if "llamafile" in name:
        return "tiled"
    if year >= REPACKED and small and (arm or year >= REPACKED_K):
        return "repacked"
    if year >= REPACKED_K and form.startswith("q4_k"):
        return "repacked"
    tiles = small or form.startswith(("f16", "bf16", "q8_0", "q5_0", "f32"))
    return "tiled" if year >= TILED and tiles else "vector"


def _year(name: str) -> float | None:
    """When an engine's build is from, by its number, commit or date; None when it says none."""
    name = name.lower()
    for commit, year in COMMITS.items():
        if re.search(rf"\b{commit}", name):
            return year
    if build := re.search(r"\bb(\d{4,5})\b", name):
        numbers, years = zip(*BUILDS, strict=True)
        return float(np.interp(int(build[1]), numbers, years))
    if date := re.search(r"\b(20[12]\d)(?:-(\d\d))?", name):
        month = re.search(rf"\b({'|'.join(MONTHS)})[a-z]*[ -]+20[12]\d", name)
        months = int(date[2]) - 0.5 if date[2] else MONTHS.index(month[1]) + 0.5 if month else 6
        return int(date[1]) + months / 12
    return None


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads((roofline.FOLDER / "models.toml").read_text(encoding="utf-8"))
