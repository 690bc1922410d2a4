"""Our engine, counted call by call -> seconds of a step.

    step = (memory^p + products^p)^(1/p) + attention, scans, elements + calls x (dispatch + barrier)
    memory   = streamed bytes, from the second level, the last one, or memory, by what stays there
    products = multiply-adds over the peak of the cores, rows, outputs and inputs of each product,
               and the cycles that unpack weights of fewer bits

Each count has a constant `ours.NAME`: how many times the machine's peak time a multiply-add or an
operation takes, or cycles of a core of speed 1. Peaks are facts of devices, so that the constants
of one machine serve another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from harness.arena import AT_ONCE
from harness.arrays import Floats, Points, Seconds
from harness.records import Workload
from harness.supply import bandwidth, cached, pace

ENGINE = "numba"  # the name of our engine
UNPACKED = ("f16", "int4", "ternary", "sparse")  # formats that need more than a load
CYCLES = ("row", "output", "input", *UNPACKED)  # beside the products
INT8 = ("int8_decode", "int8_prefill")  # operations of products
FLOAT = ("float_decode", "float_prefill")
BESIDE = ("attention_decode", "attention_prefill", "scan")  # operations, float32
CALLS_OF_A_LAYER, MATRICES_OF_A_LAYER = 12, 7  # of an attention and a gated ffn
COUNTS = ("call", "element", *CYCLES, *INT8, *FLOAT, *BESIDE)


def counts(workload: Workload) -> Mapping[str, float]:
    """What a step does, by the names in COUNTS."""
    found: defaultdict[str, float] = defaultdict(float)
    for call in workload.calls:
        tokens = call.sizes.get("n", 1)
        phase = "prefill" if tokens > 1 else "decode"
        passes = 1 if workload.phase == "train" else math.ceil(tokens / AT_ONCE)
        found["call"] += call.count * passes
        if call.weight:
            weights = call.count * call.operations / 2 / tokens
            found["row"] += call.count * call.sizes["m"] * passes
            found[f"{'int8' if call.arithmetic == 'int8' else 'float'}_{phase}"] += (
                call.count * call.operations
            )
            if phase == "prefill":
                found["output"] += call.count * call.sizes["m"] * tokens
                found["input"] += call.count * call.sizes["k"] * tokens
            if name := _unpacked(call.format):
                found[name] += weights * passes
        else:
            found[_beside(call.kernel, phase)] += call.count * call.operations
    return dict(found)


def totals(
    weights: Mapping[str, float], others: float, layers: float, width: float, tokens: int
) -> Mapping[str, float]:
    """The counts of a model of which no more is known than its layers and their width.

    weights: format -> multiply-adds with weights in a step; others: those without
    """
    phase = "prefill" if tokens > 1 else "decode"
    passes = math.ceil(tokens / AT_ONCE)
    rows = sum(weights.values()) / tokens / width
    found: defaultdict[str, float] = defaultdict(float)
    found["call"] = CALLS_OF_A_LAYER * layers * passes
    found["row"] = rows * passes
    found[f"attention_{phase}"] = 2 * others
    if phase == "prefill":
        found["output"] = rows * tokens
        found["input"] = MATRICES_OF_A_LAYER * layers * width * tokens
    for form, count in weights.items():
        name = _unpacked(form)
        floats = name in ("f16", "sparse") or form.startswith("f32")
        found[f"{'float' if floats else 'int8'}_{phase}"] += 2 * count
        if name:
            found[name] += count / tokens * passes
    return dict(found)


def _unpacked(form: str) -> str:
    """The constant of what unpacking a format takes, "" where a load does."""
    return next((name for name in UNPACKED if form.startswith(name)), "")


def _beside(kernel: str, phase: str) -> str:
    if kernel.startswith("attention"):
        return f"attention_{phase}"
    return "scan" if kernel.startswith("mcsd") else "element"


def seconds(points: Points, names: tuple[str, ...], values: Floats) -> Seconds:
    """Of every point, which must be of our engine; see roofline.seconds."""
    machines, loads = points.machines, points.loads
    which, what = points.which, points.what

    def constant(name: str) -> Floats:
        one: Floats = values[..., names.index(f"ours.{name}"), None]
        return one

    def taken(part: tuple[str, ...], least: float = 0.0) -> Floats:
        """Of each point, in cycles or operations; least: of every constant."""
        each = np.maximum(values[..., [names.index(f"ours.{name}") for name in part]], least)
        total: Floats = each @ loads.counts[:, [COUNTS.index(name) for name in part]].T
        return total[..., what]

    # of each machine
    speeds, rates = pace(machines, names, values)
    shared = (rates / speeds)[..., which]  # of a peak, that work in even parts leaves
    floats = machines.float_peak[which] * shared
    wait = constant("call") + constant("barrier") * (machines.threads > 1)
    dispatch = (wait * machines.cores.sum(axis=1) / speeds)[..., which]
    per_byte = (np.maximum(constant("memory"), 1) / bandwidth(machines, names, values, trust=1))[
        ..., which
    ]
    for size, name in ((machines.cache, "last_level"), (machines.near, "second_level")):
        nearer = (1 / (constant(name) * speeds))[..., which]
        per_byte = per_byte + cached(loads.resident[what], size[which]) * (nearer - per_byte)
    # of each point
    passes = np.maximum(1, np.ceil(loads.prompt / AT_ONCE))
    memory = (loads.streamed * passes)[what] * per_byte
    # a machine that was measured amid noise may seem to beat its limits; no other one will
    products = taken(CYCLES) / rates[..., which] + taken(FLOAT, least=1) / floats
    products += taken(INT8, least=1) / (machines.int8_peak[which] * shared)
    beside = taken(BESIDE, least=1) / floats + taken(("element",)) / rates[..., which]
    overhead = loads.counts[what, COUNTS.index("call")] * dispatch
    join = constant("join")
    return Seconds(
        memory=memory,
        compute=products + beside,
        overhead=overhead,
        total=(memory**join + products**join) ** (1 / join) + beside + overhead,
    )
