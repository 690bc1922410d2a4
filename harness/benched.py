"""What a benchmark wrote (llama-bench: Markdown, JSON, JSON lines, CSV; or our columns) -> lines.

A line has the columns of calibration/published.csv, so that it is read like any published one.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInput

UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
UNITS |= {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SHOWN = ("model", "size", "params", "backend", "threads", "test", "t/s")  # of a CPU build
FORMATS = {"medium": "m", "small": "s", "large": "l"}  # llama-bench's "Q4_K - Medium"
Line = dict[str, str]


def read(path: Path, device: str) -> list[Line]:
    """The measurements of a file, each a row for `reported.read`. Raises BadInput in one line."""
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text") from None
    try:
        rows = _rows(text)
        lines = [line for row in rows if (line := _line(row, device)) is not None]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadInput(f"{path} is no table of llama-bench: {error}") from None
    if not lines:
        raise BadInput(
            f"{path} holds no measurement; give the output of llama-bench (Markdown, JSON, CSV) or "
            "a CSV with the columns of published.csv"
        )
    return lines


def _rows(text: str) -> Sequence[Mapping[str, Any]]:
    """The table's rows, whatever it is written in."""
    if text.startswith(("[", "{")):
        rows = json.loads(text) if text.startswith("[") else map(json.loads, _filled(text))
        return [_object(row) for row in rows]
    table = [line for line in text.splitlines() if line.lstrip().startswith("|")]
    if table:
        return _markdown(table)
    return list(csv.DictReader(io.StringIO(text)))


def _filled(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _object(row: object) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{row!r} is no row of it")
    return row


def _rate(value: object) -> str:
    try:
        return str(float(str(value)))
    except ValueError:
        raise ValueError(f"{str(value).strip()!r} is no number of tokens per second") from None


def _markdown(table: Sequence[str]) -> list[Mapping[str, Any]]:
    """Rows of one or more Markdown tables, where a line of dashes follows each head, or of a
    llama-bench table whose head was left out."""
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table]
    rows: list[Mapping[str, Any]] = []
    head: Sequence[str] = SHOWN
    for i, line in enumerate(cells):
        if all(re.fullmatch(r":?-+:?", cell) for cell in line):
            continue
        following = cells[i + 1] if i + 1 < len(cells) else [""]
        if re.fullmatch(r":?-+:?", following[0]):
            head = line
            continue
        if len(line) != len(head):
            raise ValueError(f"a row has {len(line)} cells, its head {len(head)}")
        rows.append(dict(zip(head, line, strict=True)))
    return rows


def _line(row: Mapping[str, Any], device: str) -> Line | None:
    """One measurement, or None where a row is of something else: a GPU, a mixed test."""
    if "weights_format" in row and "tokens_per_s" in row:  # columns of published.csv
        return {**{key: str(value or "") for key, value in row.items()}, "device_id": device}
    if "avg_ts" in row:
        return _native(row, device)
    if "test" in row and "t/s" in row:
        return _shown(row, device)
    raise ValueError(f"no columns of llama-bench among {', '.join(map(str, row)) or 'none'}")


def _native(row: Mapping[str, Any], device: str) -> Line | None:
    """A row of `llama-bench -o json`, `jsonl` or `csv`."""
    prompt, made, depth = (int(row.get(key) or 0) for key in ("n_prompt", "n_gen", "n_depth"))
    if bool(prompt) == bool(made) or _on_gpu(row):
        return None
    kind = str(row.get("model_type") or "")
    file = Path(str(row.get("model_filename") or "")).name
    test = f"pp{prompt}" if prompt else f"tg{made}"
    return {
        "device_id": device,
        "model": _model(file, kind),
        "params_b": f"{float(row.get('model_n_params') or 0) / 1e9 or ''}",
        "weights_format": _format(kind),
        "weight_bytes": str(row.get("model_size") or ""),
        "engine": f"llama.cpp b{row['build_number']}" if row.get("build_number") else "llama.cpp",
        "threads": str(row.get("n_threads") or ""),
        "phase": "prefill" if prompt else "decode",
        "context_or_n": f"{test} @ d{depth}" if depth else test,
        "tokens_per_s": _rate(row["avg_ts"]),
    }


def _on_gpu(row: Mapping[str, Any]) -> bool:
    backend = str(row.get("backends") or "cpu").lower()
    return int(row.get("n_gpu_layers") or 0) > 0 and not ("cpu" in backend or "blas" in backend)


def _shown(row: Mapping[str, Any], device: str) -> Line | None:
    """A row of the Markdown that llama-bench prints."""
    test = re.fullmatch(r"(pp|tg)(\d+)(?: @ d(\d+))?", str(row["test"]).strip())
    backend = str(row.get("backend") or "CPU").upper()
    if test is None or not ("CPU" in backend or "BLAS" in backend):
        return None
    kind = str(row.get("model") or "")
    params, stored = (_quantity(str(row.get(key) or "")) for key in ("params", "size"))
    return {
        "device_id": device,
        "model": _model("", kind),
        "params_b": f"{params / 1e9}" if params else "",
        "weights_format": _format(kind),
        "weight_bytes": f"{stored:.0f}" if stored else "",
        "engine": "llama.cpp",
        "threads": str(row.get("threads") or ""),
        "phase": "prefill" if test[1] == "pp" else "decode",
        "context_or_n": str(row["test"]).strip(),
        "tokens_per_s": _rate(re.split(r"±|\+/-", str(row["t/s"]))[0]),
    }


def _quantity(text: str) -> float:
    """Of "1.87 GiB" or "3.21 B" (10^9, of parameters); 0 of nothing."""
    found = re.fullmatch(r"([\d.]+)\s*([A-Za-z]*)", text.strip())
    if found is None:
        return 0.0
    unit = found[2].upper()
    return float(found[1]) * (10**9 if unit == "B" else UNITS.get(unit, 1))


def _format(kind: str) -> str:
    """Of "llama 3B Q4_K - Medium": q4_k_m."""
    found = re.search(r"\b(I?Q\d\w*|T[QL]\d\w*|B?F16|F32|MXFP4|I2_S)\b(?:\s*-\s*(\w+))?", kind)
    if found is None:
        return ""
    mix = FORMATS.get((found[2] or "").lower())
    return (
        f"{found[1].lower()}_{mix}" if mix and found[1].upper().endswith("K") else found[1].lower()
    )


def _model(file: str, kind: str) -> str:
    """The file's name without its format, else the kind without it."""
    name = re.sub(r"(?i)\.gguf$", "", file) or kind
    return re.sub(r"(?i)[-. ](ud-)?(I?Q\d|T[QL]\d|B?F16|F32|MXFP4|I2_S).*$", "", name).strip()
