"""Answer -> text for people, or JSON for programs; both say that they speak of CPU execution."""

from __future__ import annotations

import io
import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from harness.choice import Choice
from harness.decide import Answer
from harness.evidence import Reading
from harness.judge import Limits, Verdict
from harness.table import CPU_ONLY, broken, interval, plain, quantity, si, size, threads_text

if TYPE_CHECKING:
    from rich.table import Table

MARKS = "~ projected or modelled, its interval holds 90 % of cases; measured: 95 % of the median"


def text(answer: Answer, width: int = 100, most: int = 10) -> str:
    """The ranking, the doubts about it, and why the others fell out, `width` wide.

    most: rows shown of the ranking of each kind, and of the rest
    """
    from rich.console import Console  # noqa: PLC0415  programs that want JSON need no terminal

    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False)

    def say(line: str, indent: int = 0) -> None:
        console.print(textwrap.fill(line, width, subsequent_indent=" " * indent))

    say(f"{CPU_ONLY} {_question(answer)}")
    groups = groupby(answer.ranked, key=lambda v: "" if answer.together else v.choice.kind)
    for kind, group in groups:
        verdicts = list(group)
        console.print()
        say(f"{kind or 'measured and projected together'}".upper())
        console.print(_ranking(verdicts[:most]))
        if any(v.chance < 0.995 for v in verdicts[:most]):
            chances = (f"{n} {v.chance:.0%}" for n, v in enumerate(verdicts[:most], start=1))
            say(f"Chance that all limits hold: {', '.join(chances)}", 5)
        for doubt, numbers in _doubted(verdicts[:most]).items():
            say(f"{numbers:>3}: {doubt}", 5)
        if len(verdicts) > most:
            say(f"     and {len(verdicts) - most} more")
    if answer.nearest is not None:
        console.print()
        say(f"Nothing holds all limits. Nearest miss: {_fell(answer.nearest)}")
    if answer.measure_first:
        console.print()
        say(f"MEASURE FIRST: {answer.measure_first}", 6)
    if answer.rejected:
        counts = Counter(reason for v in answer.rejected for reason in v.broken)
        by = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        console.print()
        say(f"FELL OUT: {len(answer.rejected)}, by {by}; nearest first")
        for verdict in answer.rejected[:most]:
            say(f"  {_fell(verdict)}", 6)
        if len(answer.rejected) > most:
            say(f"  and {len(answer.rejected) - most} more")
    console.print()
    say(f"{MARKS}.")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def as_json(answer: Answer) -> str:
    """Every verdict in SI units; `rank` starts at 1 in each kind of evidence."""
    ranked = []
    for _, group in groupby(answer.ranked, key=lambda v: answer.together or v.choice.kind):
        ranked += [{"rank": n, **_flat(v)} for n, v in enumerate(group, start=1)]
    content = {
        "scope": CPU_ONLY,
        "limits": asdict(answer.limits),
        "depth": answer.depth,
        "ranked_by": answer.metric,
        "corpus": answer.corpus,
        "together": answer.together,
        "ranked": ranked,
        "rejected": [_flat(verdict) for verdict in answer.rejected],
        "nearest": _flat(answer.nearest) if answer.nearest else None,
        "measure_first": answer.measure_first,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _doubted(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Each doubt once, with the ranks that have it: "1-4, 6"."""
    found: dict[str, list[int]] = {}
    for number, verdict in enumerate(verdicts, start=1):
        for doubt in dict.fromkeys(verdict.doubts):
            found.setdefault(doubt, []).append(number)
    return {doubt: _ranges(numbers) for doubt, numbers in found.items()}


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _question(answer: Answer) -> str:
    asked = ", ".join(_asked(answer.limits)) or "none"
    corpus = f" on {answer.corpus}" if answer.corpus else ""
    depth = f" Context depth {answer.depth}." if answer.depth else ""
    return f"Limits: {asked}.{depth} Ranked by {answer.metric}{corpus}, then by time per token."


def _asked(limits: Limits) -> Iterable[str]:
    if limits.min_tokens_per_second is not None:
        yield f"at least {limits.min_tokens_per_second:g} tokens/s"
    if limits.max_memory_bytes is not None:
        yield f"at most {size(limits.max_memory_bytes)}"
    if limits.max_joules_per_token is not None:
        yield f"at most {si(limits.max_joules_per_token, 'J/token')}"
    if limits.max_seconds_to_first_token is not None:
        yield f"first token within {si(limits.max_seconds_to_first_token, 's')}"
    if limits.max_seconds_per_training_step is not None:
        yield f"a training step within {si(limits.max_seconds_per_training_step, 's')}"
    if limits.max_training_memory_bytes is not None:
        yield f"trained in at most {size(limits.max_training_memory_bytes)}"
    if limits.max_bits_per_byte is not None:
        yield f"at most {limits.max_bits_per_byte:g} bits per byte"
    if limits.min_accuracy is not None:
        yield f"accuracy at least {limits.min_accuracy:g}"


def _ranking(verdicts: Iterable[Verdict]) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", justify="right")
    table.add_column("candidate", overflow="fold")
    table.add_column("device", overflow="fold")
    for title in ("quality", "time/token", "tokens/s", "J/token", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    for number, verdict in enumerate(verdicts, start=1):
        choice = verdict.choice
        table.add_row(
            str(number), broken(choice.row.candidate, 16), _where(choice, "\n"), *_numbers(choice)
        )
    return table


def _numbers(choice: Choice) -> tuple[str, ...]:
    quality, seconds, rate = choice.quality, choice.seconds, choice.rate
    score = f"{quality.value:.3f}\n±{quality.standard_error:.3f}" if quality else "-"
    energy = "-"
    if choice.joules:
        method = "model" if choice.joules.mark == "P" else "meter"
        energy = f"{quantity(choice.joules, 'J')}\n{method}"
    return (
        score,
        f"{quantity(seconds, 's')}\n{interval(seconds)}" if seconds else "-",
        f"{_tilde(rate)}{plain(rate.value)}" if rate else "-",
        energy,
        f"{_tilde(choice.memory)}{size(choice.memory.value)}".replace(" ", "\n")
        if choice.memory
        else "-",
    )


def _fell(verdict: Verdict) -> str:
    where = _where(verdict.choice, ", ")
    return f"{verdict.choice.row.candidate} on {where}: {'; '.join(verdict.misses)}"


def _where(choice: Choice, gap: str) -> str:
    return f"{choice.row.device}{gap}{threads_text(choice.row.threads)}"


def _tilde(reading: Reading) -> str:
    return "~" if reading.mark == "P" else ""


def _flat(verdict: Verdict) -> dict[str, object]:
    choice = verdict.choice
    quality = choice.quality
    return {
        "candidate": choice.row.candidate,
        "device": choice.row.device,
        "threads": choice.row.threads,
        "engine": choice.row.engine,
        "kind": choice.kind,
        "quality": quality.value if quality else None,
        "quality_standard_error": quality.standard_error if quality else None,
        "seconds_per_token": _reading(choice.seconds),
        "tokens_per_second": _reading(choice.rate),
        "joules_per_token": _reading(choice.joules),
        "memory_bytes": _reading(choice.memory),
        "seconds_to_first_token": _reading(choice.first_token),
        "seconds_per_training_step": _reading(choice.step),
        "training_memory_bytes": _reading(choice.step_memory),
        "chance": verdict.chance,
        "broken": verdict.broken,
        "misses": verdict.misses,
        "doubts": verdict.doubts,
    }


def _reading(reading: Reading | None) -> dict[str, object] | None:
    if reading is None:
        return None
    kind = "projected" if reading.mark == "P" else "measured"
    return {
        "value": reading.value,
        "low": reading.low,
        "high": reading.high,
        "kind": kind,
        "source": reading.source,
    }
