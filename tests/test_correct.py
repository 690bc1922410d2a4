"""What a few measurements of a device do to every projection of it, and of nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from harness import correct, forecast, queries, roofline, whatif
from harness.cli import answers, app, fitting, projecting  # noqa: F401 - verbs
from harness.errors import BadInput, HarnessError
from harness.project import project, work_of
from harness.settings import Setting
from targets.profile import load

MODEL = "attention:110m@int4"
SLOW = 0.7  # of the speed that the facts promise


@pytest.fixture
def corrected(tmp_path):
    """A fit that knows of three runs on a Pi 5, each 30 % slower than projected."""
    device, fit = load("rpi5"), roofline.load()
    seen = []
    for model in (MODEL, "attention:500m@int4", "attention:17m@int4"):
        spec, _ = forecast.settle(model, "tg64", device)
        step = project(spec, device, 4).value / spec.tokens
        setting = Setting(work=work_of(spec), device=device, threads=4, engine="numba")
        seen.append((setting, step / SLOW, model))
    known = correct.of_settings(seen, "rpi5")
    correct.file_of("rpi5", tmp_path).write_text(correct.as_json(known))
    return correct.informed(fit, tmp_path)


def speeds(device, fit, name=MODEL, threads=4):
    spec, _ = forecast.settle(name, "tg64", device)
    plain, known = (project(spec, device, threads, fit=each) for each in (roofline.load(), fit))
    return plain, known


def width(found):
    return math.log(found.high / found.low)


def test_a_measured_device_is_projected_near_what_was_measured_with_less_doubt(corrected):
    plain, known = speeds(load("rpi5"), corrected)
    assert plain.value / known.value == pytest.approx(SLOW, rel=0.06)
    assert width(known) < 0.7 * width(plain)
    assert "corrected by 3 measurements of this device" in known.flags
    assert not any("corrected" in flag for flag in plain.flags)
    assert known.low < plain.value / SLOW < known.high


def test_measurements_say_less_of_other_formats_and_nothing_of_other_devices(corrected):
    _, near = speeds(load("rpi5"), corrected)
    plain, other = speeds(load("rpi5"), corrected, "attention:110m@f16")
    assert width(near) < width(other) < width(plain)
    for name in ("rpi500", "rk3588"):
        plain, known = speeds(load(name), corrected)
        assert known == plain


def test_changed_hardware_keeps_its_correction_as_a_factor(corrected):
    device = load("rpi5")
    there = whatif.changed(device, ["memory_bandwidth=2x", "clock=1.2x"])
    (plain, known), (before, after) = speeds(device, corrected), speeds(there, corrected)
    assert after.value < known.value
    assert known.value / plain.value == pytest.approx(after.value / before.value)
    spec, threads = forecast.settle(MODEL, "tg64", device, corrected)
    worth = whatif.elasticities(spec, device, threads, corrected)
    facts = whatif.elasticities(spec, device, threads)
    assert {w.fact: round(w.speed, 6) for w in worth} == {w.fact: round(w.speed, 6) for w in facts}
    assert whatif.needed(spec, device, 4, 40, corrected).bandwidth > (
        whatif.needed(spec, device, 4, 40).bandwidth
    )


def test_a_table_and_a_candidate_are_corrected_alike(corrected):
    row = {"device_id": "rpi5", "model": "Llama-3.2-1B", "weights_format": "Q4_0", "threads": "4"}
    devices = {"rpi5": load("rpi5")}
    (plain,) = queries.answers([row], devices, roofline.load())
    (known,) = queries.answers([row], devices, corrected)
    assert SLOW < float(known["tokens_per_s"]) / float(plain["tokens_per_s"]) < 0.95
    assert "corrected by 3 measurements of this device" in known["note"]
    rows = forecast.point(MODEL, "tg64", load("rpi5"), 4, corrected)
    assert rows.seconds == speeds(load("rpi5"), corrected)[1]


def test_one_run_of_llama_bench_corrects_every_verb(tmp_path, monkeypatch):
    bench = tmp_path / "bench.md"
    bench.write_text("| llama 1B Q4_0 | 729.75 MiB | 1.24 B | CPU | 4 | tg128 | 9.10 ± 0.02 |\n")
    questions = tmp_path / "q.csv"
    questions.write_text("device_id,model,weights_format,threads\nrpi5,Llama-3.2-1B,Q4_0,4\n")
    monkeypatch.setenv("EDGEWISE_DEVICES", str(tmp_path))

    def say(*words):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.exception
        return result.output

    what = ("--device", "rpi5", "--candidate", MODEL, "--workload", "tg64")
    asked = {
        "project": ("project", *what),
        "table": ("project", "--table", str(questions)),
        "whatif": ("whatif", "rpi5", *what[2:], "--set", "memory_bandwidth=2x"),
    }
    limits = ("--tokens-per-second", "20", "--candidate", MODEL)
    before = say("require", *limits)
    assert not any("corrected" in say(*words) for words in asked.values())
    told = say("calibrate", "--device", "rpi5", "--from", str(bench))
    assert "9.1 " in told
    assert (tmp_path / "rpi5.measured.json").exists()
    for words in asked.values():
        assert "corrected by one measurement of this device" in say(*words)
    assert say("require", *limits) != before


def test_a_second_run_joins_the_first_and_replaces_what_it_repeats(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_DEVICES", str(tmp_path))
    run = "| llama 1B Q4_0 | 729.75 MiB | 1.24 B | CPU | 4 | {} | {} |\n"

    def measured(*lines):
        bench = tmp_path / "bench.md"
        bench.write_text("".join(run.format(*line) for line in lines))
        words = ("calibrate", "--device", "rpi5", "--from", str(bench))
        assert CliRunner().invoke(app, words).exit_code == 0
        seen = correct.load(correct.file_of("rpi5", tmp_path)).seen
        return {s.work.phase: s.work.tokens / s.seconds for s in seen}

    assert measured(("tg128", 9.1)) == {"decode": pytest.approx(9.1)}
    assert measured(("pp512", 60.0)) == {"decode": pytest.approx(9.1), "prefill": pytest.approx(60)}
    assert measured(("tg128", 8.5))["decode"] == pytest.approx(8.5)


def test_a_correction_that_cannot_be_written_is_told_in_a_line(tmp_path, monkeypatch):
    bench = tmp_path / "bench.md"
    bench.write_text("| llama 1B Q4_0 | 729.75 MiB | 1.24 B | CPU | 4 | tg128 | 9.10 |\n")
    correct.file_of("rpi5", tmp_path / "mine").mkdir(parents=True)
    monkeypatch.setenv("EDGEWISE_DEVICES", str(tmp_path / "mine"))
    done = CliRunner().invoke(app, ("calibrate", "--device", "rpi5", "--from", str(bench)))
    assert isinstance(done.exception, HarnessError)


def test_one_measurement_is_told_in_the_singular(corrected):
    one = replace(corrected, misses={"rpi5": corrected.misses["rpi5"][:1]})
    assert "corrected by one measurement of this device" in speeds(load("rpi5"), one)[1].flags


def test_a_broken_correction_and_one_of_no_device_are_told_in_a_line(tmp_path):
    assert correct.informed(roofline.load(), None).misses == {}
    path = tmp_path / "nowhere.measured.json"
    known = correct.of_settings(
        [(Setting(work=work_of(forecast.settle(MODEL, "tg64", load("rpi5"))[0]),
                  device=load("rpi5"), threads=4, engine="numba"), 0.1, "a run")], "nowhere",
    )  # fmt: skip
    path.write_text(correct.as_json(known))
    with pytest.raises(BadInput, match=r"nowhere\.measured\.json .* unknown device 'nowhere'"):
        correct.informed(roofline.load(), tmp_path)
    raw = json.loads(path.read_text())
    raw["seen"][0]["seconds"] = -1
    path.write_text(json.dumps(raw))
    with pytest.raises(BadInput, match="is no correction") as refused:
        correct.informed(roofline.load(), tmp_path)
    assert "\n" not in str(refused.value)
