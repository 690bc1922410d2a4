"""Trials -> the page that answers a study's question, in words that follow from the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness import candidates
from harness.checkpoint import recipe_hash
from harness.study import claims, grid
from harness.study.claims import Estimate, Verdict
from harness.study.frame import Line, Study, Trial

MINUS = "−"


def page(
    study: Study,
    trials: Mapping[str, Trial],
    devices: str,
    files: Sequence[Path],
    command: str,
) -> str:
    """Markdown: the answer, the claims, then where the evidence is.

    devices: the table of the answer on each of them; files: relative paths
    """
    found = claims.verdicts(study, trials)
    said = "\n".join(f"- {line}" for line in lines(study, trials, found))
    parts = [f"# {study.title}", said]
    parts += ["## On each device", devices, DEVICES]
    parts += ["## Claims", claim_table(found), INTERVAL]
    tables = [f"- [{_title(path)}]({path.as_posix()})" for path in files if path.suffix != ".png"]
    figures = [f"![{_title(path)}]({path.as_posix()})" for path in files if path.suffix == ".png"]
    parts += ["## Tables", "\n".join(tables), "## Figures", *figures]
    parts += ["## How this was made", made(trials, command), SCEPTIC]
    return grid.page(parts)


def lines(study: Study, trials: Mapping[str, Trial], found: Sequence[Verdict]) -> list[str]:
    """The sentences to quote: what became of the claims, then one for each line of the study."""
    count = Counter(verdict.met for verdict in found)
    said = (
        f"Of {len(found)} claims {count['yes']} are met, {count['no']} are not, and "
        f"{count['unresolved']} are unresolved."
    )
    return [said, *(sentence(study, trials, line) for line in study.line)]


def sentence(study: Study, trials: Mapping[str, Trial], line: Line) -> str:
    """The words for where the interval lies, with the numbers filled in."""
    known = claims.estimate(study, trials, line.value)
    if known.value is None:
        return f"Not known yet: {line.value} has no trials."
    if known.low is None:
        return f"Not resolved with one seed: {line.value} is {_number(known.value)}."
    words = {"wins": line.wins, "loses": line.loses, "unresolved": line.unresolved}
    return words[outcome(known, line)].format_map(_numbers(known, line.decimals))


def outcome(known: Estimate, line: Line) -> str:
    if known.low is None or known.high is None:
        return "unresolved"
    sign = 1 if line.better == "lower" else -1
    low, high = sorted((sign * (known.low - line.against), sign * (known.high - line.against)))
    return "wins" if high < 0 else "loses" if low > 0 else "unresolved"


def claim_table(found: Sequence[Verdict]) -> str:
    rows = [
        [
            verdict.claim.claim,
            _number(verdict.estimate.value),
            f"{_number(verdict.estimate.low)} to {_number(verdict.estimate.high)}",
            verdict.claim.bar,
            verdict.claim.unit,
            str(verdict.estimate.seeds),
            verdict.met,
        ]
        for verdict in found
    ]
    return grid.table(["claim", "value", "interval", "bar", "unit", "seeds", "met"], rows)


def made(trials: Mapping[str, Trial], command: str) -> str:
    """What it took: trials, weights, hours, code."""
    good = [t for t in trials.values() if not t.failed]
    weights = {t.checkpoint_hash for t in good if t.checkpoint_hash}
    hours = (sum(t.scoring_seconds for t in good) + training_seconds(good)) / 3600
    commits = sorted({t.commit[:12] for t in good if t.commit})
    machines = sorted({t.machine for t in good})
    failed = len(trials) - len(good)
    return (
        f"`{command}` writes this page and all it links to from {len(good)} trials"
        f"{f' ({failed} more failed)' if failed else ''} of {len(weights)} sets of weights: "
        f"about {hours:.1f} hours of training and scoring on one thread, on "
        f"{'; '.join(machines) or 'no machine yet'}, at commit {', '.join(commits) or 'none'}."
    )


def training_seconds(trials: Iterable[Trial]) -> float:
    """Of all weights once. What was tuned further carries the seconds of what it was tuned from."""
    own: dict[str, float] = {}
    further: dict[str, tuple[str, float]] = {}
    for trial in trials:
        base = recipe_hash(candidates.base(trial.recipe))
        if trial.recipe.steps and not trial.teacher:
            further[trial.checkpoint_hash] = base, trial.training_seconds
        else:
            own[trial.checkpoint_hash if trial.teacher else base] = trial.training_seconds
    more = (max(0.0, seconds - own.get(base, 0.0)) for base, seconds in further.values())
    return sum(own.values()) + sum(more)


def _numbers(known: Estimate, decimals: int) -> dict[str, str]:
    def show(value: float | None, sign: str = "") -> str:
        return "?" if value is None else f"{value:{sign}.{decimals}f}".replace("-", MINUS)

    value = known.value or 0.0
    least, most = sorted((abs(known.low or 0.0), abs(known.high or 0.0)))
    sign = "+" if min(value, known.low or 0.0) < 0 else ""  # a ratio needs none
    return {
        "value": show(value, "+"),
        "plain": show(value),
        "size": show(abs(value)),
        "low": show(known.low, sign),
        "high": show(known.high, sign),
        "least": show(least),
        "most": show(most),
        "seeds": str(known.seeds),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _title(path: Path) -> str:
    return path.stem.replace("_", " ")


INTERVAL = (
    "A value is the mean over seeds of what is paired by seed, with its 95 % interval (Student's "
    "t). `met` is yes or no only where the whole interval is on one side of the bar."
)
DEVICES = (
    "What fits in the time that a token takes the reference's fastest and its best point. Every "
    "time and energy (`~`) is projected, of decoding on the CPU; scores are those of the packed "
    "weights in the engine."
)
SCEPTIC = (
    "Each file in [rows](rows) is one trial and answers for itself: the whole recipe, the tokens "
    "and characters seen (those of a teacher and of fine-tuning too), the learning rate and the "
    "grid it was chosen from, the seed, the hash of the weights that were scored and the format "
    "each is packed in, the hash of the text and of the text trained on, the bytes the engine "
    "laid out, and the code that did it. Scored is always the packed checkpoint in the engine "
    "that is timed."
)
