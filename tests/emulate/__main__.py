"""Kernels and engine on an emulated Arm core: `python -m tests.emulate cortex-a76`.

References are computed here, by PyTorch; the code is compiled and run on the core that is
emulated, so an instruction that this core lacks kills it. Timings there mean nothing. What passed
is kept, and not tried again until its code or its inputs change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.asm.cores import known
from harness.engines.numba import plan
from tests.emulate import cases, system

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".nox" / "emulate"
SOURCES = ("tests/contract.py", "tests/emulate/guest.py", "harness/verify.py")
COLUMNS = {
    "kernel": ("agrees", "writes", "scratch", "spans", "nan"),
    "engine": ("prefill", "steps", "threads"),
}
WAIT = 1800  # seconds without a word from the emulated core before it counts as hung


def main() -> int:
    arm = [name for name, core in known().items() if core.arch == "aarch64"]
    parser = argparse.ArgumentParser(prog="python -m tests.emulate", description=__doc__)
    parser.add_argument("cpu", choices=arm, metavar="CPU", help=", ".join(arm))
    parser.add_argument("names", nargs="*", help="kernels, or FORMAT-FFN; all by default")
    parser.add_argument("--mirror", default="", help="Debian mirror, as debootstrap takes it")
    given = parser.parse_args()
    try:
        return emulate(given.cpu, given.names, given.mirror)
    except system.CannotEmulate as error:
        note(f"emulate: {error}")
        return 2


def emulate(cpu: str, names: Sequence[str], mirror: str) -> int:
    """0 when every case passed, 1 otherwise. Raises CannotEmulate."""
    if unknown := set(names) - set(cases.names()):
        listed = ", ".join(cases.names())
        raise system.CannotEmulate(f"unknown {', '.join(sorted(unknown))}; known: {listed}")
    root = system.prepare(HOME, note, mirror)
    note("computing references with PyTorch")
    chosen = cases.write(HOME / "cases", names or cases.names())
    store = HOME / f"{cpu}.jsonl"
    keys = {case.name: key(case) for case in chosen}
    done = {n: f for n, k, f in stored(store) if keys.get(n) == k and not any(f.values())}
    todo = [case.name for case in chosen if case.name not in done]
    if done:
        note(f"{len(done)} of {len(chosen)} passed before with this very code")
    with store.open("a", encoding="utf-8") as file:
        for name, found in results(root, cpu, HOME / "cases", todo):
            done[name] = found
            file.write(json.dumps({"name": name, "key": keys[name], "found": found}) + "\n")
            file.flush()
    print(table(cpu, chosen, done))
    return int(any(any(found.values()) for found in done.values()))


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def key(case: cases.Case) -> str:
    """Of the code that is tried and of what it is given."""
    digest = hashlib.sha256(plan.fingerprint().encode() + case.digest.encode())
    for source in SOURCES:
        digest.update((ROOT / source).read_bytes())
    return digest.hexdigest()[:16]


def stored(store: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """What earlier runs found; a line that was cut off is passed over."""
    for line in store.read_text("utf-8").splitlines() if store.exists() else ():
        try:
            entry = json.loads(line)
            yield entry["name"], entry["key"], entry["found"]
        except (ValueError, KeyError):
            continue


def results(
    root: Path, cpu: str, folder: Path, names: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """(case, pass -> why it failed or "") as they come; a crash costs its own case alone."""
    left, begin = list(names), time.monotonic()
    while left:
        current, last = "", time.monotonic()
        with open_guest(root, cpu, folder, left) as guest:
            for said in lines(guest):
                current = said.get("begin", current)
                if "end" not in said:
                    continue
                left.remove(current)
                now, finished = time.monotonic(), len(names) - len(left)
                rest = (now - begin) / finished * len(left) / 60
                bad = [label for label, why in said["found"].items() if why]
                outcome = f"failed: {', '.join(bad)}" if bad else "right"
                note(
                    f"{cpu} {finished}/{len(names)} {current}: {outcome}, {now - last:.0f} s; "
                    f"about {rest:.0f} min left"
                )
                last = now
                yield current, said["found"]
        if left and not current:
            raise system.CannotEmulate(f"{cpu} does not start ({died(guest)}): {said_last(cpu)}")
        if left:
            why = died(guest)
            note(f"{cpu} {current}: {why}")
            left.remove(current)
            yield current, {"agrees": why, "prefill": why}


def lines(guest: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """What the guest says; it is ended when it says nothing for too long."""
    while True:
        timer = threading.Timer(WAIT, guest.kill)
        timer.start()
        try:
            line = guest.stdout.readline() if guest.stdout else ""
        finally:
            timer.cancel()
        if not line:
            return
        yield json.loads(line)


def open_guest(root: Path, cpu: str, folder: Path, names: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        system.command(root, cpu, str(Path(__file__).with_name("guest.py")), str(folder), *names),
        env=system.environment(root, ROOT, HOME / f"cache-{cpu}", cpu, known()[cpu].flags),
        stdout=subprocess.PIPE,
        stderr=(HOME / f"{cpu}.log").open("w", encoding="utf-8"),
        text=True,
    )


def said_last(cpu: str) -> str:
    text = (HOME / f"{cpu}.log").read_text("utf-8", errors="replace").strip()
    return text.splitlines()[-1] if text else "it said nothing"


def died(guest: subprocess.Popen[str]) -> str:
    """Why the emulated process ended, from its exit code."""
    number = -guest.returncode if guest.returncode < 0 else guest.returncode - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exit code {guest.returncode}"
    wrong = " (an instruction this core does not have)" if name == "SIGILL" else ""
    return f"killed by {name}{wrong}"


def table(cpu: str, chosen: Sequence[cases.Case], done: dict[str, dict[str, str]]) -> str:
    """Case by pass, and every failure in a line."""
    lines = []
    for kind, columns in COLUMNS.items():
        rows = [case.name for case in chosen if case.kind == kind]
        if rows:
            lines.append(f"{kind + ' on ' + cpu:<26}" + "".join(f"{c:>9}" for c in columns))
        for name in rows:
            marks = [mark(done.get(name, {}), column) for column in columns]
            lines.append(f"{name:<26}" + "".join(f"{m:>9}" for m in marks))
    failures = [
        f"{name}: {label}: {why}"
        for name, found in done.items()
        for label, why in found.items()
        if why
    ]
    return "\n".join([*lines, *failures, f"{len(done)} cases, {len(failures)} failures"])


def mark(found: dict[str, str], column: str) -> str:
    return "-" if column not in found else "FAILED" if found[column] else "right"


if __name__ == "__main__":
    raise SystemExit(main())
