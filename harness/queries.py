"""A table of questions -> the same table with answers, row by row, in order.

A question has the columns of calibration/published.csv; blanks are filled by stated defaults.
What cannot be projected keeps its row, with the reason in `note`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness import correct, intervals, reported, roofline, sustained
from harness.doubts import TELLING, doubts
from harness.errors import BadInput
from harness.joules import of_setting
from harness.records import Failed
from harness.reported import Line
from harness.roofline import Fit
from harness.settings import points
from targets.profile import Device, ProfileError

NEEDED = ("device_id", "model")
ANSWERS = (
    "tokens_per_s", "low", "high", "bound",
    "joules_per_token", "joules_low", "joules_high", "note",
)  # fmt: skip
Rows = Sequence[Mapping[str, str]]


def read(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The questions of a CSV file and its columns. Raises BadInput in one line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no CSV file: it is not UTF-8 text") from None
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = list(reader)
    except csv.Error as error:
        raise BadInput(f"{path} is no CSV file: {error}") from None
    if missing := [name for name in NEEDED if name not in columns]:
        raise BadInput(
            f"{path} has no column {' and '.join(missing)}; its first line must name columns such "
            "as device_id, model, params_b, weights_format, engine, threads, phase, context_or_n"
        )
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise BadInput(f"{path} has the column {twice[0]!r} twice")
    return [_whole(row) for row in rows], columns


def answers(
    rows: Rows,
    devices: Mapping[str, Device],
    fit: Fit,
) -> list[dict[str, str]]:
    """One answer for every question, in order: the columns ANSWERS as text."""
    lines: list[Line | str] = [_line(row, devices) for row in rows]
    asked = [line for line in lines if isinstance(line, Line)]
    if not asked:
        return [_refused(str(line)) for line in lines]
    parts = roofline.seconds(points([a.setting for a in asked], fit), fit.names, fit.values)
    timed = iter(zip(asked, parts.total.tolist(), roofline.bounds(parts), strict=True))
    found = []
    for line in lines:
        if isinstance(line, str):
            found.append(_refused(line))
            continue
        found.append(_answer(*next(timed), fit))
    return found


def write(rows: Rows, columns: Iterable[str], found: Rows) -> str:
    """The questions with their answers, as CSV."""
    kept = [name for name in columns if name not in ANSWERS]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*kept, *ANSWERS], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **answer} for row, answer in zip(rows, found, strict=True))
    return out.getvalue()


def _whole(row: Mapping[str | None, object]) -> dict[str, str]:
    """A row with every column as text; what lies beyond the last column is kept as a doubt."""
    whole = {key: str(value or "") for key, value in row.items() if key is not None}
    if row.get(None):
        whole["_beyond"] = "more fields than columns"
    return whole


def _line(row: Mapping[str, str], devices: Mapping[str, Device]) -> Line | str:
    """The row read, or why it cannot be projected."""
    if beyond := row.get("_beyond"):
        return f"the row has {beyond}; quote texts that hold commas"
    name = row["device_id"].strip()
    if not name:
        return "no device_id"
    if name not in devices:
        return f"unknown device {name!r}; `edgewise list devices` names those with a profile"
    backend = row.get("backend", "").strip().lower()
    if backend and not backend.startswith("cpu"):
        return f"backend {backend}: only execution on the CPU is projected"
    try:
        return reported.read(row, devices[name])
    except (BadInput, ProfileError) as error:
        return str(error)


def _answer(line: Line, seconds: float, bound: str, fit: Fit) -> dict[str, str]:
    setting = line.setting
    found = doubts(setting, fit, line.notes)
    half = intervals.half(fit.intervals[line.phase], found)
    seconds, half, seen = correct.corrected(seconds, half, setting, fit)
    notes = [*line.notes, *(why for name, why in found.items() if name in TELLING), *seen]
    device = setting.device
    if line.stored_bytes > device.memory_bytes.value:
        notes.append(
            f"needs {line.stored_bytes / 2**30:.1f} GiB, the profile's variant has "
            f"{device.memory_bytes.value / 2**30:.1f} GiB for a program: holds where more is fitted"
        )
    rate = line.tokens / seconds
    spread = math.exp(half)
    joules = of_setting(setting, (seconds, seconds / spread, seconds * spread))
    answer = {
        "tokens_per_s": f"{rate:.5g}",
        "low": f"{rate / spread:.5g}",
        "high": f"{rate * spread:.5g}",
        "bound": bound,
        "joules_per_token": "",
        "joules_low": "",
        "joules_high": "",
    }
    if isinstance(joules, Failed):
        notes.append(joules.reason)
    else:
        for key, value in (
            ("joules_per_token", joules.value), ("joules_low", joules.low),
            ("joules_high", joules.high),
        ):  # fmt: skip
            answer[key] = f"{value / line.tokens:.4g}"
        notes += joules.flags
    notes.append(sustained.note(device))
    return {**answer, "note": "; ".join(filter(None, dict.fromkeys(notes)))}


def _refused(reason: str) -> dict[str, str]:
    return {**dict.fromkeys(ANSWERS, ""), "note": f"not projected: {reason}"}
