"""A report on loops -> the text that a terminal shows."""

from __future__ import annotations

from collections.abc import Iterator

from harness.asm import Feed, Part, Report


def text(report: Report) -> str:
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    core = report.core
    yield f"{report.kernel} on {core.name} ({core.arch}: {', '.join(core.features)}), " + (
        f"{report.compiler}; compiled here, not run"
    )
    hot = [part for part in report.parts if part.hot]
    for part in hot:
        yield ""
        yield from _hot(part, report.feeds)
    if rest := report.parts[len(hot) :]:
        yield ""
        yield f"{len(rest)} further inner loops, which read less or stand less deep:"
        for part in rest:
            yield f"  {part.loop.label}, depth {part.loop.depth}: {_kinds(part)}"
    yield ""
    yield from (f"limit: {limit}" for limit in report.limits)


def _hot(part: Part, feeds: tuple[Feed, ...]) -> Iterator[str]:
    blocks = f" in {part.loop.blocks} blocks" if part.loop.blocks > 1 else ""
    yield f"loop {part.loop.label}, depth {part.loop.depth}{blocks}: {_kinds(part)}"
    spilled = f", {part.spilled_bytes} B from the stack" if part.spilled_bytes else ""
    yield (
        f"  reads      {part.stream_bytes} B of its largest stream an iteration, "
        f"{part.other_bytes} B of others{spilled}"
    )
    found = part.cycles
    if found and found.cycles:
        yield (
            f"  takes      {found.cycles:.2f} cycles an iteration, by {found.tool}: "
            f"{part.bytes_per_cycle:.2f} B of that stream a cycle"
        )
        yield f"  memory     {_memory(part.bytes_per_cycle or 0.0, feeds)}"
    elif found:
        yield f"  takes      unknown: {found.why}"
    yield from (f"    {line.expandtabs(8)}" for line in part.loop.lines)


def _memory(rate: float, feeds: tuple[Feed, ...]) -> str:
    if not feeds:
        return "unknown: no device profile has this core first and a read bandwidth of one thread"
    ends = [feeds[0]] if len(feeds) == 1 else [feeds[0], feeds[-1]]
    given = " to ".join(
        f"{feed.bytes_per_cycle:.2f} ({feed.device}: {feed.read_bandwidth / 1e9:.1f} GB/s "
        f"at {feed.clock_hz / 1e9:.2f} GHz)"
        for feed in ends
    )
    ratios = " to ".join(f"{rate / feed.bytes_per_cycle:.1f}" for feed in reversed(ends))
    return f"feeds {given} B a cycle; the loop could take {ratios} times that"


def _kinds(part: Part) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in part.kinds.items())
