"""A line as people publish it (model, format, engine, threads, context) + device -> Setting.

Blanks are filled by stated defaults, each with a note; what cannot be filled raises BadInput.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from harness import generations, llms, ours, roofline
from harness.errors import BadInput
from harness.settings import Setting, Work
from targets.profile import Device

Phase: TypeAlias = Literal["prefill", "decode"]
PROMPT, DEPTH = 256, 128  # tokens where a line does not state them
SHORT = 25  # tokens of a "short prompt"
MOST_TOKENS = 10_000_000
LITTLE = ("little", "gracemont", "apple_little")  # left idle where a line does not say otherwise
PHONE_THREADS = 4
HEAD_BITS = {"bitnet": 16.0}  # of the head beside layers of 1 to 2 bits; others:
HEAD_BITS_OTHERWISE = 6.6


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
    engine = generations.engine_family(row.get("engine", ""), notes)
    found = llms.model(row.get("model", ""), _number(row, "params_b"), notes)
    work, stored = _work(row, found, engine, phase, tokens, depth, notes)
    kernel = generations.kernel(row.get("engine", ""), engine, next(iter(work.weights)), device)
    setting = Setting(work=work, device=device, threads=threads, engine=engine, kernel=kernel)
    return Line(
        setting=setting, phase=phase, tokens=tokens, stored_bytes=stored, notes=tuple(notes)
    )


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
    found: llms.Model,
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
        weight_bytes = 1e9 * (layers * llms.bits(form) + found.head * bits) / 8
    else:
        weight_bytes *= llms.bits(form) / 8
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
    if engine == ours.ENGINE:
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
    llms.check(key, value, repr(text))
    return value
