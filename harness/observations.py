"""Published and own measurements -> observations: a setting with the seconds it took."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import reported, roofline, stats
from harness.errors import BadInput
from harness.ours import ENGINE
from harness.project import work_of
from harness.records import Measured, Row, Workload
from harness.reported import Line, Phase
from harness.settings import Setting
from targets.profile import Device

PUBLISHED = roofline.FOLDER / "published.csv"
SAME = {  # SoCs that are two dies of another, or the same die under another name
    "Apple M2 Ultra": "Apple M2 Max",
    "ESWIN EIC7702X": "ESWIN EIC7700X",
    "Raptor Lake-HX": "Raptor Lake-S",
}
SMALLEST, SHORTEST = 0.2, 64  # parameters [10^9] and prompt of a clean row


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One measurement: `seconds` of a step at this setting.

    group: what is left out together, the SoC; distrusted: why the fit does without it, or ""
    caveat: why the row is not among the clean ones, or ""; notes: what was assumed
    engine, model, form: as its author names them
    """

    setting: Setting
    seconds: float
    phase: Phase
    group: str
    source: str
    row: int  # 0-based in its file; -1 for our own
    distrusted: str = ""
    caveat: str = ""
    notes: tuple[str, ...] = ()
    engine: str = ""
    model: str = ""
    form: str = ""


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
    except (OSError, KeyError, ValueError, BadInput) as error:
        raise BadInput(f"{path} cannot be used: {error!r}") from None


def own(
    rows: Iterable[Row], devices: Mapping[str, Device], workload: Callable[[Row], Workload]
) -> tuple[Observation, ...]:
    """The measured rows of our engine; `devices` is by the row's device or host name."""
    found = []
    for row in rows:
        host = row.environment.host if row.environment else ""
        device = devices.get(row.device) or devices.get(host)
        if row.engine != ENGINE or not isinstance(row.seconds, Measured) or device is None:
            continue
        if row.phase == "train":
            continue
        steps = row.tokens if row.phase == "decode" else 1
        work = work_of(workload(row))
        found.append(
            Observation(
                setting=Setting(work=work, device=device, threads=row.threads, engine=ENGINE),
                seconds=stats.median(row.seconds.samples) / steps,
                phase=row.phase,
                group=SAME.get(device.soc, device.soc),
                source=f"{row.candidate} {row.workload}",
                row=-1,
                distrusted="too few samples" if row.quick else "",
                engine=ENGINE,
                model=row.candidate.partition(":")[2].partition("@")[0],
                form=max(work.weights, key=lambda form: work.weights[form]),
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
    line = reported.read(row, device)
    seconds = line.tokens / float(row["tokens_per_s"])
    return Observation(
        setting=line.setting,
        seconds=seconds,
        phase=line.phase,
        group=SAME.get(device.soc, device.soc),
        source=row["source_url"],
        row=number,
        distrusted=row["excluded"],
        caveat=row["excluded"] or _caveat(row, line),
        notes=line.notes,
        engine=row["engine"],
        model=row["model"],
        form=row["weights_format"],
    )


def _caveat(row: Mapping[str, str], line: Line) -> str:
    """Why a row is not clean, by what it says of itself; never by how far off it is."""
    if float(row["params_b"] or 1) < SMALLEST:
        return f"fewer than {SMALLEST * 1e9:.0e} parameters"
    if line.phase == "prefill" and line.tokens < SHORTEST:
        return f"a prompt of fewer than {SHORTEST} tokens"
    return ""
