"""Workload + Device -> Projected: seconds by model, with an interval and the bound named."""

from __future__ import annotations

import math

from harness import roofline
from harness.errors import BadInput
from harness.records import Failed, Projected, Workload
from harness.roofline import Fit
from harness.settings import Setting, Work, isa, points
from targets.profile import Device

TRAINING = "train-1"  # how a step becomes work, see work_of
PRODUCTS = "numba"  # PyTorch's float32 products are taken to be as good as ours
PASSES = 3  # through the layers: forward, and backward to the inputs and to the weights
NEVER_TRAINED = "extrapolates: no training step was in the fit"


def project(
    workload: Workload,
    device: Device,
    threads: int,
    engine: str = "numba",
    fit: Fit | None = None,
) -> Projected | Failed:
    """Seconds of the whole run on a device: tokens x step of a decode, the prompt of a prefill.

    The interval covers 90 % of devices that the fit has not seen (leave-one-out). An optimiser
    step is a prompt of its products, three passes through the layers, and the bytes that they
    keep and that AdamW moves. Raises BadInput when threads is no positive number.
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
    flags = doubts(setting, fit)
    if trains:
        flags = (*flags, NEVER_TRAINED)
    low, high = widened(fit.intervals[setting.work.phase], len(flags))
    shares = {
        "memory": float(parts.memory[0]),
        "compute": float(parts.compute[0]),
        "overhead": float(parts.overhead[0]),
    }
    return Projected(
        value=value,
        low=value * math.exp(low),
        high=value * math.exp(high),
        model=f"{fit.model}, {TRAINING}" if trains else fit.model,
        bound=max(shares, key=lambda k: shares[k]),
        flags=flags,
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
            tokens=min(workload.tokens, roofline.PASS),  # one pass: its bytes are counted whole
            layers=PASSES * workload.layers,
            weights=weights,
            others=others,
            streamed_bytes=streamed,
            resident_bytes=workload.resident_bytes,
        )
    return Work(
        phase=workload.phase,
        tokens=workload.tokens if workload.phase == "prefill" else 1,
        layers=workload.layers,
        weights=weights,
        others=others,
        streamed_bytes=streamed,
        resident_bytes=streamed,
    )


def doubts(setting: Setting, fit: Fit) -> tuple[str, ...]:
    """Why this point lies outside what the fit has seen; each widens the interval."""
    found = [
        f"extrapolates: core {c.core} is of no known family"
        for c in setting.device.clusters
        if roofline.family("core", c.core) is None
    ]
    seen = fit.provenance.get("isa", [])
    has = isa(setting.device, setting.threads)
    ours = roofline.family("engine", setting.engine) == "numba"
    if ours and isinstance(seen, list) and has not in seen:
        found.append(f"extrapolates: our engine was never timed on {has}")
    if has == "scalar":
        found.append("extrapolates: no vector unit")
    about = "numba_format" if ours else "format"
    found += [
        f"extrapolates: format {name} is of no known family"
        for name in setting.work.weights
        if roofline.family(about, name) is None
    ]
    if setting.threads > setting.device.cores:
        found.append(f"extrapolates: {setting.threads} threads on {setting.device.cores} cores")
    return tuple(dict.fromkeys(found))


def widened(interval: tuple[float, float], doubts: int) -> tuple[float, float]:
    """The interval (logarithms) with a factor of 1.35 of further doubt for each reason."""
    extra = doubts * math.log(1.35) ** 2
    low, high = interval
    return -math.sqrt(low**2 + extra), math.sqrt(high**2 + extra)


def _bytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count / 2**10:,.0f} KiB"
