"""The engine's threads: late, too many, interrupted, forked, short of CPU time, forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from harness.engines.numba import crew, plan, session
from harness.errors import BadInput
from kernels import team
from kernels.simd import OPTIONS
from tests import models

ROOT = Path(__file__).parents[1]
LONG = 100_000  # tokens whose prefill takes many seconds
SOON = 5.0  # seconds; it takes one where the machine has nothing else to do
PATIENCE = 60.0  # seconds after which a test that should have ended counts as hung
POSIX = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")


def checkpoint():
    return models.checkpoint(models.shape(("mcsd", "attention")), "int8")


def text(n=20, seed=0):
    return np.random.default_rng(seed).integers(0, 101, n)


def logits(threads=1, n=20, **options):
    with session.open_session(checkpoint(), room=n, threads=threads, **options) as s:
        found = [session.feed(s, text(n)[:-3])]
        return np.stack([*found, *(session.step(s, int(t)).copy() for t in text(n)[-3:])])


def together(*works):
    """Run each in a thread; raises when they do not end."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "hung"


def python(code, *arguments, send=None, after=0.0, **options):
    """(exit code, output, seconds from the signal to the end); code says "ready" when it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(after)
        begin = time.monotonic()
        if send is not None:
            process.send_signal(send)
        out, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, out + errors, time.monotonic() - begin
    finally:
        process.kill()
        process.wait()


OPEN = """
import os, sys, time
from harness import arena
from harness.engines.numba import session
from harness.errors import HarnessError
from tests.test_threads import LONG, checkpoint, logits, text
def opened(room, threads=2):
    return session.open_session(checkpoint(), room=room, threads=threads)
def ready():
    print("ready", flush=True)
"""

# ---- barriers and jobs --------------------------------------------------------------------------


@njit(**OPTIONS)
def rounds(block, threads, count, delays, tally, seen):
    """Add 1, wait, look, wait: nobody may see a sum before or after its time."""
    wrong = 0
    for turn in range(count):
        for _ in range(delays[turn]):
            team.pause()
        team.atomic_add(tally, 0, 1)
        team.barrier(block, threads)
        wrong += team.atomic_load(tally, 0) != threads * (turn + 1)
        team.barrier(block, threads)
    seen[0] = wrong
    return wrong


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("generation", [0, 2**31 - 7, 2**32 - 7, 2**63 - 7])
def test_a_barrier_lets_nobody_through_early_however_late_they_are(threads, generation):
    rng, count = np.random.default_rng(threads), 60
    block, tally = team.shared_block(), np.zeros(1, np.int64)
    block[team.GENERATION] = generation
    # most come at once, some after the others have started to give way
    delays = (50 * rng.pareto(0.5, (threads, count))).clip(0, 60_000).astype(np.int64)
    found = np.full((threads, 1), -1)
    rounds(team.shared_block(), 1, 1, delays[0], np.zeros(1, np.int64), np.zeros(1, np.int64))
    together(*(
        lambda i=i: rounds(block, threads, count, delays[i], tally, found[i])
        for i in range(threads)
    ))  # fmt: skip
    assert not found.any()


@njit(**OPTIONS)
def helper(block, thread, threads, done):
    seen = 0
    while team.await_job(block, seen):
        seen += 1
        done[thread, block[team.JOB]] += block[team.JOB + 1]
        team.barrier(block, threads)
    return seen


@njit(**OPTIONS)
def caller(block, threads, job, value):
    team.post(block, job, value, 0)
    team.barrier(block, threads)


@njit(**OPTIONS)
def dismiss(block):
    team.stop(block)


def test_every_helper_does_every_job_once_whether_it_span_yielded_or_slept():
    threads, jobs = 4, 60
    block, done = team.shared_block(), np.zeros((threads, jobs), np.int64)
    rng = np.random.default_rng(0)

    def call():
        for job in range(jobs):
            # up to some multiples of what passes before a helper sleeps
            time.sleep(float(rng.choice([0, 0, 1e-4, 3e-3, 2e-2, 6e-2])))
            caller(block, threads, job, job + 1)
        dismiss(block)

    together(call, *(lambda i=i: helper(block, i, threads, done) for i in range(1, threads)))
    assert (done[1:] == np.arange(1, jobs + 1)).all()
    assert block[team.PARKED] == 0


def test_a_stopped_team_leaves_a_barrier_that_one_of_them_never_reaches():
    block, begun = team.shared_block(), time.monotonic()
    done = np.zeros((3, 1), np.int64)

    def leave():
        team_post(block)
        time.sleep(0.2)
        dismiss(block)

    @njit(**OPTIONS)
    def team_post(block):
        team.post(block, 0, 1, 0)

    together(leave, *(lambda i=i: helper(block, i, 3, done) for i in (1, 2)))
    assert time.monotonic() - begun < 10
    assert done[1:].tolist() == [[1], [1]]


# ---- more threads than cores, little CPU time --------------------------------------------------


ONE_CORE = """
import numpy as np
from tests.test_threads import *
cores = sorted(os.sched_getaffinity(0))[:1]
os.sched_setaffinity(0, cores)
wanted = logits()
neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print("ready", flush=True)
try:
    for threads in (2, 4):
        np.testing.assert_array_equal(logits(threads, cores=cores), wanted)
finally:
    neighbour.kill()
    neighbour.wait()
"""


@POSIX
def test_four_threads_on_one_busy_core_are_slow_and_right():
    logits()  # compiles
    code, out, _ = python(ONE_CORE)
    assert code == 0, out


def group_with_quota(share):
    """A new control group that may use so much of one core, or None."""
    name = f"edgewise-test-{os.getpid()}"
    for top, files in (
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_period_us": "20000", "cpu.cfs_quota_us": "{}"}),
        (Path("/sys/fs/cgroup"), {"cpu.max": "{} 20000"}),
    ):
        folder = top / name
        try:
            folder.mkdir()
            for file, words in files.items():
                (folder / file).write_text(words.format(int(share * 20000)))
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            continue
        return folder
    return None


QUOTA = """
import sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
import numpy as np
from harness.cores import usable_cores
from tests.test_threads import *
print("ready", flush=True)
assert usable_cores() == 1
wanted = logits()
for threads in (2, 4):
    np.testing.assert_array_equal(logits(threads), wanted)
"""


@POSIX
def test_a_container_with_half_a_core_is_slow_and_right():
    logits()
    folder = group_with_quota(0.5)
    if folder is None:
        pytest.skip("no control group may be made here")
    try:
        code, out, _ = python(QUOTA, str(folder))
        assert code == 0, out
    finally:
        for _ in range(100):
            if not (folder / "cgroup.procs").read_text():
                break
            time.sleep(0.01)
        folder.rmdir()


@POSIX
def test_the_callers_thread_is_pinned_until_the_session_is_closed():
    before = os.sched_getaffinity(0)
    with session.open_session(checkpoint(), room=4, threads=2, cores=sorted(before)[:1]):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@POSIX
def test_a_core_that_may_not_be_used_is_refused_and_nothing_hangs():
    before = os.sched_getaffinity(0)
    with pytest.raises(BadInput, match=r"may not use core 9999; it may use"):
        session.open_session(checkpoint(), room=4, threads=2, cores=(9999,))
    assert os.sched_getaffinity(0) == before


# ---- interrupts -------------------------------------------------------------------------------


INTERRUPTED = (
    OPEN
    + """
wanted = logits()
s = opened(LONG)
ready()
try:
    session.feed(s, text(LONG))
except KeyboardInterrupt:
    print("interrupted", s.depth % arena.AT_ONCE)
try:
    session.step(s, 1)
except HarnessError as error:
    print(error)
session.reset(s)
again = session.feed(s, text()[:-3])
print((again == wanted[0]).all())
session.close(s)
"""
)


def test_ctrl_c_ends_a_long_prefill_and_the_session_works_after_a_reset():
    code, out, seconds = python(INTERRUPTED, send=signal.SIGINT, after=0.3)
    assert code == 0, out
    assert out.splitlines() == [
        "interrupted 0",
        "a call of the session of test:tiny was interrupted; reset it before the next",
        "True",
    ]
    assert seconds < SOON


UNCAUGHT = (
    OPEN
    + """
s = opened(LONG)
ready()
session.feed(s, text(LONG))
"""
)


def test_ctrl_c_that_nobody_catches_ends_the_process():
    code, out, seconds = python(UNCAUGHT, send=signal.SIGINT, after=0.3)
    assert code == -signal.SIGINT
    assert out.strip().endswith("KeyboardInterrupt")
    assert seconds < SOON


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
def test_interrupts_at_any_moment_leave_a_session_that_says_so_or_works():
    def interrupt(*_):
        raise KeyboardInterrupt

    rng, before = np.random.default_rng(0), signal.signal(signal.SIGALRM, interrupt)
    wanted, torn = logits()[0], 0
    try:
        with session.open_session(checkpoint(), room=100, threads=2) as s:
            for _ in range(150):
                session.reset(s)
                try:
                    signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(1e-5, 3e-3)))
                    while s.depth < 100:
                        session.step(s, 1)
                except KeyboardInterrupt:
                    pass
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                torn += s.torn
                session.reset(s)
                np.testing.assert_array_equal(session.feed(s, text()[:-3]), wanted)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert torn > 20


# ---- threads that are gone ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_helper_that_fails_ends_the_call_and_not_the_patience():
    with session.open_session(checkpoint(), room=4) as s:
        enter = plan.load(checkpoint()).enter

        def failing(thread, *arguments):
            if thread == 1:
                raise MemoryError
            return enter(thread, *arguments)

        team_of_two = crew.Crew(2, failing, s.crew.arrays)
        crew.start(team_of_two)
        found = []

        def call():
            try:
                crew.run(team_of_two, 1, 0, 0)
            except BadInput as error:
                found.append(str(error))

        together(call)
        assert found == ["the session's threads were stopped; open another session"]
        crew.stop(team_of_two)


def test_a_session_closed_by_another_thread_ends_its_call_soon():
    s = session.open_session(checkpoint(), room=LONG, threads=2)
    caught = []

    def read():
        try:
            session.feed(s, text(LONG))
        except BadInput as error:
            caught.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    time.sleep(0.2)
    session.close(s)
    reader.join(PATIENCE)
    assert caught == ["the session's threads were stopped; open another session"]


FORKED = (
    OPEN
    + """
two, one = opened(20), opened(20, 1)
ready()
child = os.fork()
if not child:
    try:
        session.step(two, 1)
    except HarnessError as error:
        print(error, flush=True)
    session.close(two)
    session.step(one, 1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
session.step(two, 1)
session.close(two)
print("done")
"""
)


def test_a_forked_child_is_told_that_the_threads_stayed_behind():
    code, out, _ = python(FORKED)
    assert (code, out.splitlines()) == (0, [
        "a session's threads stay in the process that opened it; open another one",
        "done",
    ])  # fmt: skip


@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_an_interpreter_may_end_without_closing_anything(pause):
    code, out, seconds = python(f"{OPEN}\ns = opened(20, 4)\nready()\ntime.sleep({pause})")
    assert (code, out) == (0, "")
    assert seconds < SOON + pause


def test_a_forgotten_session_sends_its_threads_home():
    s = session.open_session(checkpoint(), room=4, threads=3)
    helpers = list(s.crew.helpers)
    assert all(helper.is_alive() for helper in helpers)
    del s
    assert not any(helper.is_alive() for helper in helpers)
