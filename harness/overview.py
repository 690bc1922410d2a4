"""Rows -> one line a candidate: quality, memory, speed here and projected elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness import evidence, plugins
from harness.evidence import Reading
from harness.records import Quality, Row
from harness.table import CPU_ONLY, quantity, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A candidate at depth 0: tokens/s and joules per token by device, the fastest threads."""

    candidate: str
    parameters: int
    quality: Quality | None
    resident: Reading | None
    limit: str  # fraction of the host's limit
    rate: dict[str, Reading]
    joules: dict[str, Reading]


def lines(rows: Iterable[Row], devices: Sequence[str]) -> list[Line]:
    """Best quality first; candidates without one (random weights) last, smallest first."""
    rate, joules = plugins.metrics()["tokens_per_second"], plugins.metrics()["joules_per_token"]
    found: dict[str, list[Row]] = {}
    for row in rows:
        shown = row.phase == "decode" and row.depth == 0 and row.device in devices
        if shown and evidence.read(row.seconds):
            found.setdefault(row.candidate, []).append(row)
    made = []
    for name, known in found.items():
        best = {
            device: max(mine, key=lambda row: rate.value(row) or 0.0)
            for device in devices
            if (mine := [row for row in known if row.device == device])
        }
        some = next(iter(best.values()))
        made.append(
            Line(
                candidate=name,
                parameters=some.parameters,
                quality=some.quality,
                resident=evidence.read(some.resident),
                limit=_limit(best.get(devices[0])),
                rate={
                    d: _per_second(row, reading)
                    for d, row in best.items()
                    if (reading := evidence.read(row.seconds))
                },
                joules={
                    d: reading
                    for d, row in best.items()
                    if joules.value(row) is not None
                    and (reading := evidence.per(evidence.read(row.joules), row.tokens))
                },
            )
        )
    return sorted(made, key=_merit)


def markdown(rows: Iterable[Row], devices: Sequence[str]) -> str:
    """A table for a page: tokens/s and J/token on each device; `~` marks what is projected."""
    heads = ["candidate", "parameters", "bits/byte", "memory", "of limit"]
    heads += [f"{device}: tokens/s, J/token" for device in devices]
    table = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for line in lines(rows, devices):
        cells = [f"`{line.candidate}`", f"{line.parameters / 1e6:.2f} M", _score(line.quality)]
        cells += [size(line.resident.value) if line.resident else "-", line.limit]
        cells += [_both(line.rate.get(d), line.joules.get(d)) for d in devices]
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table) + f"\n\n{NOTE} {CPU_ONLY}\n"


NOTE = (
    "Decoding from an empty context, at the thread count that is fastest. `~` marks projections "
    "and modelled energy; the rest was measured, on the first device. bits/byte: held-out text "
    "through the packed weights in the engine that was timed, ± standard error; `-`: random "
    "weights, speed only. of limit: of the read bandwidth of the memory, or of the cache, that the "
    "weights stream from; above 100 %, memory was faster during the run than while its limit was "
    "measured."
)


def _per_second(row: Row, seconds: Reading) -> Reading:
    return replace(
        seconds,
        value=row.tokens / seconds.value,
        low=row.tokens / seconds.high,
        high=row.tokens / seconds.low,
    )


def _limit(row: Row | None) -> str:
    if row is None:
        return "-"
    metric = plugins.metrics()["fraction_of_limit"]
    value = metric.value(row)
    return "-" if value is None else f"{value:.0%}"


def _both(rate: Reading | None, joules: Reading | None) -> str:
    """Tokens/s, then J/token where it is known."""
    return ", ".join(_show(r, unit) for r, unit in ((rate, ""), (joules, "J")) if r) or "-"


def _show(reading: Reading, unit: str) -> str:
    return ("~" if reading.mark == "P" else "") + quantity(reading, unit).lstrip("~")


def _score(quality: Quality | None) -> str:
    return f"{quality.value:.3f} ± {quality.standard_error:.3f}" if quality else "-"


def _merit(line: Line) -> tuple[float, int, str]:
    score = line.quality.value if line.quality else float("inf")
    return score, line.parameters, line.candidate
