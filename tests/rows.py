"""A small factory of realistic fake rows: a host that measured, three devices projected."""

from __future__ import annotations

import hashlib
import random

from harness.records import Environment, Failed, Measured, Projected, Quality, Row

HOST = "workbench"
SIZES = {
    "nano": (0.80e6, 4, 128, 2.30),
    "micro": (3.0e6, 4, 256, 2.05),
    "110m": (110e6, 12, 768, 0),
}
STEPS = {  # bytes a weight, share of the weights kept, loss in bits per byte
    "": (4.0, 1.0, 0.0),
    "int8": (1.03, 1.0, 0.004),
    "int4": (0.56, 1.0, 0.05),
    "prune50": (4.0, 0.70, 0.09),
    "prune50+int8": (1.03, 0.70, 0.095),
    "sparse50": (4.2, 1.0, 0.06),
}
ARCHITECTURES = {"attention": 0.0, "mcsd": 0.04, "mcsd+selective": 0.06}
DEVICES = {  # bytes/s with 1 and 2 threads, operations/s of one thread, idle W, memory [B]
    "host": (11e9, 18e9, 40e9, 12.0, 16e9),
    "rpi5": (7.5e9, 10e9, 25e9, 2.7, 4e9),
    "rpi-zero-2w": (1.6e9, 1.9e9, 5e9, 0.6, 0.4e9),
    "pixel-8": (18e9, 22e9, 45e9, 0.9, 8e9),
}
WORKLOADS = {"pp128": (128, 0), "ttft": (128, 0), "tg64": (64, 0)} | {
    f"tg64 @ d{depth}": (64, depth) for depth in (1024, 2048, 4096)
}


def environment(host: str = HOST, started: str = "2025-03-01T12:00:00+00:00") -> Environment:
    return Environment(
        host=host,
        device="",
        cpu="Fake CPU 3000",
        cores=2,
        memory_bytes=16 * 2**30,
        caches={"l1d": 32 * 2**10, "l2": 2 * 2**20, "l3": 8 * 2**20},
        governor="performance",
        affinity=(0, 1),
        versions={"python": "3.11.9", "numba": "0.66.0"},
        commit="0123abc",
        dirty=False,
        started=started,
        limits={
            "read_bytes_per_s.1": 11e9,
            "read_bytes_per_s.2": 18e9,
            "cache_read_bytes_per_s.1": 25e9,
            "float32_ops_per_s.1": 40e9,
            "float32_ops_per_s.2": 80e9,
            "int8_ops_per_s.1": 120e9,
            "int8_ops_per_s.2": 240e9,
        },
    )


def row(
    architecture: str = "attention",
    size: str = "nano",
    step: str = "",
    device: str = "host",
    workload: str = "tg64",
    threads: int = 1,
    *,
    seed: int = 0,
    noise: float = 0.02,
    quick: bool = False,
    host: str = HOST,
) -> Row:
    """One row, the same on every call: times follow from bytes, operations and the device."""
    name = f"{architecture}:{size}" + (f"@{step}" if step else "")
    random_ = random.Random(f"{name} {device} {workload} {threads} {seed}")
    weights, layers, width, best = SIZES[size]
    width_bytes, kept, loss = STEPS[step]
    tokens, depth = WORKLOADS[workload]
    phase = "decode" if workload.startswith("tg") else "prefill"
    per_token = 2 * layers * width * 4
    state = per_token * (depth + 32) if architecture == "attention" else layers * width * 16
    active = 0.75 if "selective" in architecture else 1.0
    weight_bytes = int(weights * width_bytes * kept * active)
    one, two, speed, idle, memory = DEVICES[device]
    bandwidth = one if threads == 1 else two
    operations = int(2 * weights * kept * active) * (tokens if phase == "prefill" else 1)
    step_seconds = max(
        (weight_bytes + state) / bandwidth / 0.7,
        operations / (speed * threads * (2.5 if "int" in step else 1)) / 0.6,
    )
    seconds = (step_seconds + 6e-6) * (tokens if phase == "decode" else 1)
    joules = seconds * (idle + 2.0 * threads) + weight_bytes * tokens * 20e-12
    resident = int(weights * width_bytes * kept) + state + 200_000
    measured = device == "host"
    fits = resident < memory
    quality = None
    if best:
        quality = Quality(
            metric="bits per byte",
            value=best + loss + ARCHITECTURES[architecture] + 0.004 * random.Random(name).random(),
            standard_error=0.008,
            blocks=64,
            corpus="pydocs",
            corpus_hash="c0ffee",
            trained_on="c0ffee",
        )
    if measured:
        times: Measured | Projected | Failed = Measured(
            samples=tuple(seconds * (1 + noise * abs(random_.gauss(0, 1))) for _ in range(30)),
            method="pyperf",
            flags=("beyond trained context",) if depth > 256 else (),
        )
    elif fits:
        times = Projected(
            value=seconds,
            low=0.75 * seconds,
            high=1.3 * seconds,
            model="roofline-1",
            bound="memory",
        )
    else:
        times = Failed(reason=f"does not fit: needs {resident} B of {memory:.0f} B")
    energy = Projected(value=joules, low=0.6 * joules, high=1.6 * joules, model="idle-load-1")
    return Row(
        candidate=name,
        recipe_hash=hashlib.sha256(name.encode()).hexdigest()[:16],
        checkpoint_hash=hashlib.sha256(f"weights {name}".encode()).hexdigest()[:16],
        parameters=int(weights * kept),
        device=device,
        workload=workload,
        phase=phase,
        tokens=tokens,
        depth=depth,
        threads=threads,
        engine="numba",
        seconds=times,
        joules=energy if fits else Failed(reason="does not fit"),
        resident=Measured(samples=(float(resident),), method="counted")
        if measured
        else Projected(value=resident, low=resident, high=resident, model="counted-1"),
        quality=quality,
        environment=environment(host) if measured else None,
        weight_bytes=weight_bytes,
        state_bytes=state if phase == "decode" else 0,
        operations=operations,
        compile_seconds=2.5 if measured else None,
        peak=Measured(samples=(resident + 120e6,), method="VmHWM") if measured else None,
        baseline_bytes=110_000_000 if measured else None,
        quick=quick,
        seed=seed,
    )


def many(
    sizes: tuple[str, ...] = ("nano", "micro", "110m"),
    devices: tuple[str, ...] = tuple(DEVICES),
    workloads: tuple[str, ...] = tuple(WORKLOADS),
    threads: tuple[int, ...] = (1, 2),
) -> list[Row]:
    """Every architecture, step, size, device, workload and thread count."""
    return [
        row(architecture, size, step, device, workload, count)
        for architecture in ARCHITECTURES
        for size in sizes
        for step in STEPS
        for device in devices
        for workload in workloads
        for count in threads
    ]
