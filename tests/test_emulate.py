"""The parts of the emulation, on this CPU: cases, the script that runs them, the table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.emulate import __main__ as emulate
from tests.emulate import cases, guest, system

ROOT = Path(__file__).parents[1]


def ran(folder, *names):
    """What the script says, run by this very Python."""
    done = subprocess.run(
        [sys.executable, guest.__file__, str(folder), *names],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("cases")
    cases.write(made, ["rmsnorm"])
    cases.engine(made, "f32-dense", ("attention", "attention"))
    return made


def test_what_is_right_passes_in_every_pass(folder):
    kernel, engine = (said for said in ran(folder, "rmsnorm", "f32-dense") if "end" in said)
    assert kernel["found"] == dict.fromkeys(emulate.COLUMNS["kernel"], "")
    assert engine["found"] == dict.fromkeys(emulate.COLUMNS["engine"], "")


def test_what_is_wrong_fails_and_the_rest_goes_on(folder, tmp_path):
    wrong = shutil.copytree(folder, tmp_path / "cases")
    with np.load(folder / "rmsnorm.npz") as file:
        arrays = {name: 1.001 * a if ".out." in name else a for name, a in file.items()}
    np.savez(wrong / "rmsnorm.npz", **arrays)
    found = ran(wrong, "rmsnorm")[-1]["found"]
    assert found.pop("agrees").startswith("Mismatch: kernel rmsnorm")
    assert not any(found.values())


def test_the_script_loads_no_torch(folder):
    code = f"import sys; sys.argv = ['guest', {str(folder)!r}]; import tests.emulate.guest; "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_every_kernel_and_every_stack_has_a_name():
    listed = cases.names()
    assert len(set(listed)) == len(listed)
    assert {"attention", "int4-selective", "bf16-dense"} <= set(listed)


def test_inputs_that_change_change_the_digest(tmp_path):
    (first,) = cases.write(tmp_path, ["rmsnorm"])
    (again,) = cases.write(tmp_path, ["rmsnorm"])
    (other,) = cases.write(tmp_path, ["glu"])
    assert first == again
    assert first.digest != other.digest


def test_the_table_names_each_failure():
    chosen = [cases.Case("glu", "kernel", ""), cases.Case("rope", "kernel", "")]
    done = {"glu": {"agrees": "", "nan": "lost"}, "rope": {"agrees": ""}}
    text = emulate.table("cortex-a72", chosen, done)
    assert "FAILED" in text
    assert "glu: nan: lost" in text
    assert text.endswith("2 cases, 1 failures")


def test_results_of_a_run_that_was_cut_off_are_read_as_far_as_they_go(tmp_path):
    store = tmp_path / "results.jsonl"
    store.write_text('{"name": "glu", "key": "1", "found": {}}\n{"name": "ro')
    assert list(emulate.stored(store)) == [("glu", "1", {})]
    assert list(emulate.stored(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("code", "why"),
    [(-4, "SIGILL (an instruction this core does not have)"), (132, "SIGILL"), (3, "exit code 3")],
)
def test_how_an_emulated_process_died_is_said(code, why):
    done = subprocess.CompletedProcess([], code)
    assert why in emulate.died(done)


def test_missing_tools_are_named_with_the_command_that_brings_them(monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("says that it needs Linux")
    monkeypatch.setattr(system, "NEEDED", {"no-such-tool": "qemu-user-static"})
    with pytest.raises(system.CannotEmulate, match="apt-get install qemu-user-static"):
        system.check()
