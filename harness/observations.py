"""Published and own measurements -> observations: a setting with the seconds it took."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from harness import roofline, stats
from harness.errors import BadInput
from harness.project import work_of
from harness.records import Measured, Row, Workload
from harness.settings import Setting, Work
from targets.profile import Device

PUBLISHED = roofline.FOLDER / "published.csv"
Phase: TypeAlias = Literal["prefill", "decode"]
LITTLE = ("little", "gracemont", "apple_little")  # left idle where a row does not say otherwise
PHONE_THREADS = 4
SAME = {  # SoCs that are two dies of another, or the same die under another name
    "Apple M2 Ultra": "Apple M2 Max",
    "ESWIN EIC7702X": "ESWIN EIC7700X",
    "Raptor Lake-HX": "Raptor Lake-S",
}
PROMPT, DEPTH = 256, 128  # tokens where a row does not state them


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One measurement: `seconds` of a step at this setting.

    group: what is left out together, the SoC; distrusted: why the fit does without it, or ""
    """

    setting: Setting
    seconds: float
    phase: Phase
    group: str
    source: str
    row: int  # 0-based in its file; -1 for our own
    distrusted: str = ""


def published(devices: Mapping[str, Device], path: Path = PUBLISHED) -> tuple[Observation, ...]:
    """The CPU rows of confidence A and B, in order; distrusted ones are marked, not dropped.

    Rows of a device that `devices` lacks are left out. Raises BadInput on a broken file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return tuple(
            _observe(number, row, devices[row["device_id"]])
            for number, row in enumerate(rows)
            if _counts(row) and row["device_id"] in devices
        )
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{path} cannot be used: {error!r}") from None


def own(
    rows: Iterable[Row], devices: Mapping[str, Device], workload: Callable[[Row], Workload]
) -> tuple[Observation, ...]:
    """The measured rows of our engine; `devices` is by the row's device or host name."""
    found = []
    for row in rows:
        host = row.environment.host if row.environment else ""
        device = devices.get(row.device) or devices.get(host)
        if row.engine != "numba" or not isinstance(row.seconds, Measured) or device is None:
            continue
        if row.phase == "train":
            continue
        steps = row.tokens if row.phase == "decode" else 1
        found.append(
            Observation(
                setting=Setting(
                    work=work_of(workload(row)), device=device, threads=row.threads, engine="numba"
                ),
                seconds=stats.median(row.seconds.samples) / steps,
                phase=row.phase,
                group=SAME.get(device.soc, device.soc),
                source=f"{row.candidate} {row.workload}",
                row=-1,
                distrusted="too few samples" if row.quick else "",
            )
        )
    return tuple(found)


def excluded(path: Path = PUBLISHED) -> tuple[tuple[int, str, str], ...]:
    """Rows the fit does without: number, device and reason."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            (number, row["device_id"], row["excluded"])
            for number, row in enumerate(csv.DictReader(file))
            if row["excluded"]
        )


def _counts(row: Mapping[str, str]) -> bool:
    return (
        row["backend"] == "cpu"
        and row["confidence"] in ("A", "B")
        and row["phase"] in ("decode", "prefill")
    )


def _observe(number: int, row: Mapping[str, str], device: Device) -> Observation:
    phase: Phase = "prefill" if row["phase"] == "prefill" else "decode"
    tokens, depth = _context(row["context_or_n"], phase)
    setting = Setting(
        work=_work(row, phase, tokens, depth),
        device=device,
        threads=_threads(row["threads"], device),
        engine=row["engine"],
        kernel=_kernel(row, device) if phase == "prefill" else "",
    )
    rate = float(row["tokens_per_s"])
    return Observation(
        setting=setting,
        seconds=(tokens if phase == "prefill" else 1) / rate,
        phase=phase,
        group=SAME.get(device.soc, device.soc),
        source=row["source_url"],
        row=number,
        distrusted=row["excluded"],
    )


def _work(row: Mapping[str, str], phase: Phase, tokens: int, depth: int) -> Work:
    """Of one step; keys and values are float16, as in every engine of the table."""
    model = _model(row["model"], float(row["params_b"] or 0))
    streamed = 1e9 * model["streamed"]
    whole = 1e9 * model["total"]
    stored = float(row["weight_bytes"] or 0) or whole * _bits(row["weights_format"]) / 8
    # What is not streamed is an embedding; those are stored like the weights or wider.
    weight_bytes = stored * streamed / whole
    new = tokens if phase == "prefill" else 1
    seen = depth + (tokens / 2 if phase == "prefill" else 0)
    state = 2 * model["layers"] * model["kv"] * seen
    return Work(
        phase=phase,
        tokens=new,
        layers=int(model["layers"]),
        weights={row["weights_format"]: streamed * new},
        others=2 * model["layers"] * model["width"] * seen * new,
        streamed_bytes=weight_bytes + state,
        resident_bytes=weight_bytes + state,
    )


def _model(name: str, parameters: float) -> Mapping[str, float]:
    """Layers, width, kv, streamed and total; an unknown one is like a Llama of its size."""
    for pattern, found in _tables()["model"].items():
        if fnmatchcase(name.lower(), pattern):
            return {"total": max(parameters, found["streamed"]), **found}
    if parameters <= 0:
        raise ValueError(f"model {name!r} is in no table and its row states no parameters")
    layers = max(8, round(16 * (parameters / 1.2) ** 0.4))
    width = (1e9 * parameters / (12 * layers)) ** 0.5
    return {
        "layers": layers,
        "width": width,
        "kv": 2 * width,
        "streamed": parameters,
        "total": parameters,
    }


def _bits(name: str) -> float:
    for pattern, bits in _tables()["bits"].items():
        if fnmatchcase(name.lower(), pattern):
            return float(bits)
    raise ValueError(f"no bits per weight known for format {name!r}")


def _threads(text: str, device: Device) -> int:
    if text.isdecimal():
        return int(text)
    big = [c for c in device.clusters if roofline.family("core", c.core) not in LITTLE]
    cores = sum(int(c.count.value) for c in big or device.clusters)
    return min(cores, PHONE_THREADS) if device.category == "phone" else cores


def _context(text: str, phase: Phase) -> tuple[int, int]:
    """Tokens of the prompt, or 1, and the depth of the (mean) token before which they come."""
    at = re.search(r"@ d(\d+)", text)
    context = re.search(r"context (\d+)k", text)
    depth = int(at[1]) if at else 1024 * int(context[1]) if context else 0
    prompt = re.search(r"pp(\d+)", text)
    if phase == "prefill":
        return (int(prompt[1]) if prompt else 25 if "short" in text else PROMPT), depth
    made = re.search(r"tg(\d+)", text)
    if "in1024/out1024" in text:
        return 1, 1536
    return 1, depth + (int(made[1]) // 2 if made else 0 if context else DEPTH)


def _kernel(row: Mapping[str, str], device: Device) -> str:
    """How this engine, then, multiplied matrices of this format on this machine."""
    engine, form = row["engine"].lower(), row["weights_format"].lower()
    family = roofline.family("engine", engine)
    arm = "neon" in device.clusters[0].isa
    if family in ("mnn", "executorch", "litert"):
        return "mnn" if family == "mnn" else "xnnpack"
    if family == "ik_llama":
        return "repacked" if "-rtr" in engine else "tiled"
    if "llamafile-0.6.2" in engine or family in ("tmac", "llama_2023"):
        return "vector"
    if "llamafile" in engine:
        return "tiled"
    if "q4_0_4" in form or "cactus" in engine:
        return "repacked"
    if "2024-03" in engine or "sep-2024" in engine or "b3505" in engine:
        return "vector"
    small = form.startswith(("q4_0", "iq4_nl"))
    if "14b699ec" in engine:
        if small and arm:
            return "repacked"
        return "tiled" if small or form in ("f16", "bf16", "q8_0", "q5_0") else "vector"
    late = family == "llama_cpp" or "a1cfb64" in engine
    return "repacked" if late and (small or form.startswith("q4_k")) else "vector"


@cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads((roofline.FOLDER / "models.toml").read_text(encoding="utf-8"))
