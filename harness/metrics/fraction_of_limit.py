"""Row -> how near a run came to the host's own measured limit.

The roofline of Williams, Waterman & Patterson 2009, one side at a time: a decode step streams
its weights and state once, so its ceiling is read bandwidth, of memory or of the cache that
holds them; a prefill reuses them, so its ceiling is the arithmetic peak. `edgewise doctor`
measures all three on the same machine.
"""

from __future__ import annotations

from harness import evidence, plugins
from harness.records import Metric, Row

IN_CACHE = "in cache"


def value(row: Row) -> float | None:
    """Fraction of the limit; None for a projection, or where that limit was not measured.

    Of a decode step that stays in the last-level cache, the fraction of that cache's bandwidth;
    a step that fits a smaller cache may exceed 1.
    """
    reading = evidence.read(row.seconds)
    if reading is None or reading.mark != "M" or reading.value <= 0 or row.environment is None:
        return None
    if row.phase == "decode":
        key, work = "read_bytes_per_s", (row.weight_bytes + row.state_bytes) * row.tokens
        key = f"cache_{key}" if note(row) else key
    else:
        key, work = f"{_arithmetic(row)}_ops_per_s", row.operations
    limit = row.environment.limits.get(f"{key}.{row.threads}")
    return work / reading.value / limit if limit and work else None


def note(row: Row) -> str:
    """Why memory bandwidth is no ceiling: a decode step whose bytes stay in the last cache."""
    if row.phase != "decode" or row.environment is None:
        return ""
    streamed = row.weight_bytes + row.state_bytes
    last_level = max(row.environment.caches.values(), default=0)
    return IN_CACHE if 0 < streamed <= last_level else ""


def _arithmetic(row: Row) -> str:
    """The unit most operations run on: integer weights meet activations in int8."""
    steps = row.candidate.partition("@")[2].split("+")
    forms = (form for name in steps if (form := plugins.formats().get(name)))
    return next((form.arithmetic for form in forms), "float32")


SPEC = Metric(name="fraction_of_limit", unit="", better="higher", value=value)
