"""Workload + Device -> Projected: seconds by model, with an interval and the bound named."""

from __future__ import annotations

import math

from harness import correct, intervals, ours, roofline, sustained
from harness.arena import AT_ONCE
from harness.doubts import TELLING, doubts
from harness.errors import BadInput
from harness.records import Failed, Projected, Workload
from harness.roofline import Fit
from harness.settings import Setting, Work, points
from targets.profile import Device

TRAINING = "train-1"  # how a step becomes work, see work_of
PRODUCTS = ours.ENGINE  # PyTorch's float32 products are taken to be as good as ours
PASSES = 3  # through the layers: forward, and backward to the inputs and to the weights
NEVER_TRAINED = "extrapolates: no training step was in the fit"


def project(
    workload: Workload,
    device: Device,
    threads: int,
    engine: str = ours.ENGINE,
    fit: Fit | None = None,
) -> Projected | Failed:
    """Seconds of the whole run on a device: tokens x step of a decode, the prompt of a prefill.

    The interval covers 90 % of devices that the fit has not seen (leave-one-out), and is narrower
    where the fit knows measurements of this device (`correct.informed`). An optimiser step is a
    prompt of its products, three passes through the layers, and the bytes that they keep and that
    AdamW moves. A flag says where the speed is a burst that does not last (sustained.py). Raises
    BadInput when threads is no positive number.
    """
    if threads < 1:
        raise BadInput(f"threads must be at least 1, got {threads}")
    if workload.resident_bytes > device.memory_bytes.value:
        return Failed(
            reason=f"does not fit: needs {_bytes(workload.resident_bytes)}, "
            f"{device.name} has {_bytes(device.memory_bytes.value)} for a program"
        )
    fit = fit or roofline.load()
    trains = workload.phase == "train"
    runs = PRODUCTS if trains else engine
    setting = Setting(work=work_of(workload), device=device, threads=threads, engine=runs)
    parts = roofline.seconds(points([setting], fit), fit.names, fit.values)
    steps = workload.tokens if workload.phase == "decode" else 1
    value = float(parts.total[0]) * steps
    found = doubts(setting, fit)
    if trains:
        found = {**found, "training": NEVER_TRAINED}
    half = intervals.half(fit.intervals[setting.work.phase], found)
    value, half, notes = correct.corrected(value, half, setting, fit)
    burst = sustained.note(device)
    return Projected(
        value=value,
        low=value * math.exp(-half),
        high=value * math.exp(half),
        model=f"{fit.model}, {TRAINING}" if trains else fit.model,
        bound=roofline.bounds(parts)[0],
        flags=(
            *(why for name, why in found.items() if name in TELLING),
            *notes,
            *([burst] if burst else []),
        ),
    )


def work_of(workload: Workload) -> Work:
    """A step of a workload as counts."""
    weights: dict[str, float] = {}
    others = 0.0
    for call in workload.calls:
        work = call.count * call.operations / 2
        if call.weight:
            weights[call.format] = weights.get(call.format, 0.0) + work
        else:
            others += work
    streamed = workload.weight_bytes + workload.state_bytes
    if workload.phase == "train":
        return Work(
            phase="prefill",
            tokens=min(workload.tokens, AT_ONCE),  # one pass: its bytes are counted whole
            layers=PASSES * workload.layers,
            weights=weights,
            others=others,
            streamed_bytes=streamed,
            resident_bytes=workload.resident_bytes,
            counts=ours.counts(workload),
        )
    return Work(
        phase=workload.phase,
        tokens=workload.tokens if workload.phase == "prefill" else 1,
        layers=workload.layers,
        weights=weights,
        others=others,
        streamed_bytes=streamed,
        resident_bytes=streamed,
        counts=ours.counts(workload),
    )


def _bytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count / 2**10:,.0f} KiB"
