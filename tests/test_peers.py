"""The peers bench: verdicts, rounds, and groups that fail, die or are stopped."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import plugins, store
from harness.errors import BadInput, BadPlugin
from harness.peers import groups, limit, report, runner
from harness.peers.frame import Cell, Setup, failed, parts, verdict
from harness.peers.groups import depth, selective, sparsity, steps
from harness.peers.rounds import faster, geometric_mean, rounds, settle, share, timed

GROUP = """
import os, sys
from harness.errors import HarnessError
from harness.peers.groups import steps
from harness.peers.frame import Cell, Group

def plan(setup):
    return {{"first": ">= 2", "second": ""}}

def cells(setup):
    print("a library says hello")
    setup.say("about to measure")
    yield Cell(cell="first", ours=1.0, theirs=3.0, ratio=3.0, bar=">= 2", met="yes", headline=True)
    {second}

SPEC = Group(name="mine", summary="Mine", plan=plan, cells=cells, needs={needs}, peers=("numba",))
"""
SECOND = 'yield Cell(cell="second", ours=1.0, unit="B")'


class Watch:
    def __init__(self):
        self.said, self.cells = [], []

    def starts(self, group, cells):
        self.said.append((group, cells))

    def says(self, group, text):
        self.said.append((group, text))

    def cell(self, group, cell):
        self.cells.append(cell)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a group into a user's plugin folder, and runs it."""
    monkeypatch.setenv(plugins.PLUGINS, str(tmp_path))

    def forget():
        groups.every.cache_clear()
        for name in [n for n in sys.modules if n.startswith("edgewise_plugins")]:
            del sys.modules[name]

    def run(second=SECOND, needs=(), **options):
        (tmp_path / "groups").mkdir(exist_ok=True)
        (tmp_path / "groups" / "mine.py").write_text(GROUP.format(second=second, needs=needs))
        forget()
        watch = Watch()
        (done,) = runner.run(["mine"], tmp_path / "out", watch, **options)
        return done, watch

    yield run
    forget()


@pytest.mark.parametrize(
    ("bar", "low", "high", "met"),
    [
        (">= 1.5", 1.5, 1.7, "yes"),
        (">= 1.5", 1.4, 1.7, "unresolved"),
        (">= 1.5", 1.2, 1.4, "no"),
        ("<= 1.03", 0.9, 1.02, "yes"),
        ("<= 1.03", 1.0, 1.1, "unresolved"),
        ("<= 1.03", 1.1, 1.2, "no"),
        ("", 0.1, 0.2, ""),
    ],
)
def test_a_bar_is_met_when_the_whole_interval_says_so(bar, low, high, met):
    assert verdict(bar, (low + high) / 2, low, high) == met


def test_a_bar_that_cannot_be_read_is_refused():
    with pytest.raises(BadPlugin, match="a bar is written"):
        parts("about 2")


def test_sides_take_turns_in_alternating_order():
    turns = []

    def side(name):
        def turn():
            turns.append(name)
            return 1.0

        return turn

    samples = rounds({"a": side("a"), "b": side("b")}, 3, warmups=1)
    assert turns == list("ababbaab")
    assert samples == {"a": (1.0,) * 3, "b": (1.0,) * 3}


def test_a_spinning_thread_is_waited_for_even_where_another_process_stops_it_for_a_while(
    monkeypatch,
):
    shares = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]  # of each pause, in which the thread computes
    now, used, pauses = [0.0], [0.0], []

    def sleep(seconds):
        now[0] += seconds
        used[0] += shares[len(pauses)] * seconds
        pauses.append(seconds)

    made_up = SimpleNamespace(
        perf_counter=lambda: now[0], process_time=lambda: used[0], sleep=sleep
    )
    monkeypatch.setattr("harness.peers.rounds.time", made_up)
    settle(patience=5.0)
    assert len(pauses) == 6


def test_waiting_for_a_thread_that_never_rests_ends():
    stop = threading.Event()
    other = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    other.start()
    begin = time.perf_counter()
    settle(patience=0.05)
    assert time.perf_counter() - begin < 2.0
    stop.set()
    other.join()


def test_a_ratio_is_taken_within_each_round():
    # The machine is twice as slow in the last rounds; within every round we are twice as fast.
    samples = {"ours": (1.0,) * 4 + (2.0,) * 4, "x": (2.0,) * 4 + (4.0,) * 4, "y": (9.0,) * 8}
    cell = faster("c", samples, bar=">= 1.9", theirs=("x", "y"))
    assert (cell.ratio, cell.low, cell.high, cell.met) == (2.0, 2.0, 2.0, "yes")
    assert cell.note == "against x"


def test_a_share_of_the_limit_is_a_ratio_of_rates():
    samples = {"ours": (2.0,) * 6, "limit": (1.0,) * 6}
    cell = share("c", samples, amount=180.0, limit_amount=100.0, bar=">= 0.9")
    assert (cell.ours, cell.theirs, cell.ratio, cell.met) == (90.0, 100.0, 0.9, "yes")


def test_a_geometric_mean_counts_what_failed():
    good = [Cell(cell=str(r), ratio=r, low=r, high=r) for r in (1.0, 4.0)]
    assert geometric_mean("g", good, ">= 2").ratio == pytest.approx(2.0)
    assert geometric_mean("g", good, ">= 1.9").met == "yes"
    assert geometric_mean("g", [*good, failed("x", "", "why")], ">= 1.9").met == "failed"
    assert geometric_mean("g", [failed("x", "", "why")], ">= 1.9").ratio is None


def test_a_read_of_memory_is_timed_and_counted():
    given = runner.setup(quick=True)
    found = limit.reader(given, 1, size=2**22, seconds=0.01)
    assert found.amount >= 2**22
    assert 1e8 < found.amount / found.side() < 1e13


def test_threads_that_a_library_starts_are_pinned():
    given = runner.setup()
    if len(given.cpus) < 2:
        pytest.skip("threads cannot be pinned to two cores here")
    import os

    before = os.sched_getaffinity(0)
    rest = threading.Event()

    def library():
        worker = threading.Thread(target=rest.wait)
        worker.start()
        return worker

    try:
        worker = limit.hire(given, 2, library)
        assert os.sched_getaffinity(worker.native_id) == {given.cpus[1]}
        assert os.sched_getaffinity(0) == {given.cpus[0]}
        rest.set()
        worker.join()
    finally:
        os.sched_setaffinity(0, before)


def test_a_group_is_one_file(own):
    done, watch = own()
    assert [c.cell for c in done.cells] == ["first", "second"]
    assert list(done.cells) == watch.cells
    assert watch.said == [("mine", 2), ("mine", "about to measure")]
    assert "Numba" in done.peers["numba"]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("raise HarnessError('it is late')", "it is late"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("os.kill(os.getpid(), 11)", r"process ended \(-11\)"),
        ("return", "the group did not measure it"),
        ("yield Cell(cell='third')", "made a cell 'third' '' that it did not plan"),
    ],
)
def test_a_cell_that_could_not_be_measured_is_listed_with_the_reason(own, second, reason):
    done, _ = own(second)
    first, last = done.cells
    assert (first.met, last.cell, last.met) == ("yes", "second", "failed")
    import re

    assert re.search(reason, last.note)


def test_an_absent_package_fails_every_cell(own):
    done, _ = own(needs=("no_such_peer",))
    assert [c.met for c in done.cells] == ["failed", "failed"]
    assert "not installed: no_such_peer" in done.cells[0].note
    assert [c.bar for c in done.cells] == [">= 2", ""]


def test_a_group_that_was_measured_is_not_measured_again(own):
    before, _ = own()
    after, watch = own()
    assert (after.cells, after.seconds) == (before.cells, before.seconds)
    assert watch.said == [("mine", 2)]
    again, _ = own(fresh=True)
    assert again.seconds != before.seconds
    changed, watch = own(second="return")
    assert changed.cells[1].met == "failed"


SLEEPY = """
import os, pathlib, time
from harness.peers.groups import steps
from harness.peers.frame import Cell, Group

HERE = pathlib.Path(__file__).parent

def cells(setup):
    (HERE / "pid").write_text(str(os.getpid()))
    if not (HERE / "awake").exists():
        time.sleep(60)
    yield Cell(cell="late")

SPEC = Group(name="sleepy", summary="S", plan=lambda setup: {"late": ""}, cells=cells)
"""


def alive(pid):
    with suppress(FileNotFoundError):
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_run_that_is_stopped_goes_on_where_it_was(own, tmp_path):
    own()
    folder = tmp_path / "groups"
    (folder / "sleepy.py").write_text(SLEEPY)
    command = [sys.executable, "-m", "harness", "peers", "mine", "sleepy"]
    command += ["--results", str(tmp_path)]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (folder / "pid").exists() and time.monotonic() < end:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "goes on from here" in said
    assert not alive(int((folder / "pid").read_text()))
    stored = tmp_path / "peers" / "groups"
    before = (stored / "mine.jsonl").read_text()
    assert not (stored / "sleepy.jsonl").exists()
    (folder / "awake").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| late |" in done.stdout
    assert (stored / "mine.jsonl").read_text() == before


def test_a_damaged_file_of_a_group_is_measured_again(own, tmp_path):
    before, _ = own()
    (path,) = (tmp_path / "out" / "groups").iterdir()
    text = path.read_text()
    for damage in (text[: len(text) // 2], "", text.replace('"schema": 1', '"schema": 0')):
        path.write_text(damage)
        again, _ = own()
        assert again.cells == before.cells
        assert again.seconds != before.seconds


def test_what_a_run_stores_is_no_row(own, tmp_path):
    own()
    assert store.read(tmp_path / "out") == ([], [])


def test_a_table_has_a_row_for_every_cell(own):
    done, _ = own()
    rows = list(csv.reader(io.StringIO(report.as_csv([done]))))
    assert rows[0] == ["cell", "ours", "theirs", "unit", "ratio", "bar", "met"]
    assert rows[1] == ["first", "1", "3", "s", "3", ">= 2", "yes"]
    assert rows[2] == ["second", "1", "", "B", "", "", ""]
    text = report.markdown([done])
    assert "| first | 1.00 s | 3.00 s | 3.00 | >= 2 | yes |" in text
    assert "**numba**" in text


def test_a_page_gets_headlines_and_what_was_not_met(own, tmp_path):
    done, _ = own()
    many = [Cell(cell=f"c{i}", ratio=1.0, bar=">= 1", met="yes") for i in range(20)]
    missed = Cell(cell="missed", ratio=0.5, bar=">= 1", met="no")
    done = replace(done, cells=(*done.cells, *many, missed))
    page = tmp_path / "page.md"
    page.write_text("# P\n<!-- peers -->\nold\n<!-- /peers -->\nend\n")
    paths = report.write([done], tmp_path / "out", page)
    assert [path.name for path in paths] == ["peers.csv", "peers.md", "page.md"]
    text = page.read_text()
    shown = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert shown == ["cell", "---", "first", "missed"]
    assert "23 cells in all" in text
    assert "21 yes, 1 no" in text
    assert text.endswith("<!-- /peers -->\nend\n")


def test_a_quick_run_is_not_published(own, tmp_path):
    done, _ = own(quick=True)
    with pytest.raises(BadInput, match="not published"):
        report.write([done], tmp_path, None)


@pytest.mark.parametrize(
    ("line", "fraction"),
    [
        ([(0.0, 0.0), (0.5, 0.6), (1.0, 1.1)], 0.9),
        ([(0.0, 0.0), (0.1, 1.25), (1.0, 9.0)], 0.08),
        ([(0.0, 0.0), (0.5, 0.5), (1.0, 0.99)], 1.0),
    ],
)
def test_the_active_fraction_that_breaks_even(line, fraction):
    assert selective.breaks_even(line) == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("line", "zeros"),
    [
        ([(0.1, 1.2), (0.3, 0.8), (0.9, 0.3)], 0.2),
        ([(0.1, 0.9), (0.3, 1.1), (0.9, 0.9)], 0.6),  # faster for good, not by chance once
        ([(0.1, 0.9), (0.9, 0.3)], 0.1),
        ([(0.1, 2.0), (0.9, 1.3)], 1.0),
    ],
)
def test_the_share_of_zeros_that_breaks_even(line, zeros):
    assert sparsity.breaks_even(line) == pytest.approx(zeros)


@pytest.mark.parametrize("group", [selective, sparsity])
def test_a_table_of_a_group_shows_its_cells_another_way(group):
    names = group.plan(Setup(threads=(1, 2)))
    found = [Cell(cell=name, ratio=0.5 + i / 1000) for i, name in enumerate(names)]
    shown = group.table(found)
    widths = {line.count("|") for line in shown.splitlines()}
    assert len(widths) == 1
    assert " - " not in shown
    assert " - " in group.table(found[:3])
    done = runner.Done(group=group.SPEC.name, key="", cells=tuple(found))
    assert shown in report.markdown([done])


def test_every_group_names_its_cells_without_its_packages():
    for group in groups.every().values():
        planned = group.plan(Setup(threads=(1, 2)))
        assert planned
        for bar in planned.values():
            assert verdict(bar, 1.0, 1.0, 1.0) in ("yes", "no", "")


def test_no_layer_of_a_whole_step_repeats_another():
    arrays = steps.distinct("attention:nano").arrays
    matrices = [a for name, a in arrays.items() if name.endswith(".ffn.down")]
    assert len(matrices) > 1
    assert len({a.tobytes() for a in matrices}) == len(matrices)


def test_work_is_timed_by_the_turn():
    assert timed(lambda: time.sleep(0.001), turns=5)() >= 0.001


def test_depths_become_a_figure_when_any_were_measured(tmp_path):
    def cell(at, rival, theirs):
        name = depth.rival_name(at, rival, 2)
        return Cell(cell=name, ours=1e-3, theirs=theirs, ratio=theirs / 1e-3)

    found = [cell(at, rival, 2e-3 + at * 1e-6) for at in (0, 2048, 16384) for rival in depth.RIVALS]
    path = depth.figure(found, tmp_path / "depth.png")
    assert path == tmp_path / "depth.png"
    assert path.stat().st_size > 10_000
    text = (tmp_path / "depth.svg").read_text()
    for words in ("MCSD", "our Transformer", "llama.cpp's Transformer", "16384", "18.4x"):
        assert words in text
    assert depth.figure([failed("x", "", "absent")], tmp_path / "none.png") is None
