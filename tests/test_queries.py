"""Tables of questions: order, blanks, refusals, broken files; how published lines are read."""

from __future__ import annotations

import csv
import io
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import (
    calibrate,
    candidates,
    correct,
    generations,
    likeness,
    llms,
    observations,
    ours,
    project,
    queries,
    reported,
    roofline,
    workload,
)
from harness import settings as arrays
from harness.errors import BadInput
from targets.profile import load, load_all

DEVICES = {d.name: d for d in load_all()}
HEAD = "device_id,model,params_b,weights_format,weight_bytes,engine,threads,phase,context_or_n\n"
GOOD = "rpi5,Llama-3.2-3B,3.21,Q4_K_M,,llama.cpp b6500,4,decode,tg128\n"


def ask(text: str) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(HEAD + text)))
    return queries.answers([queries._whole(r) for r in rows], DEVICES, roofline.load())


def test_a_question_is_answered_with_interval_bound_and_energy():
    (found,) = ask(GOOD)
    rate, low, high = (float(found[k]) for k in ("tokens_per_s", "low", "high"))
    assert low < rate < high < 3 * low
    assert 3.5 < rate < 7  # people report 4.6 to 5.6 on such boards with ollama
    assert found["bound"] == "memory"
    joules = [float(found[k]) for k in ("joules_low", "joules_per_token", "joules_high")]
    assert joules == sorted(joules)
    assert 0.5 < joules[1] < 5  # 4 to 10 W at about five tokens a second


def test_every_row_comes_back_in_order_and_says_why_it_has_no_answer():
    text = (
        "nowhere,Llama-3.2-3B,3.21,Q4_K_M,,llama.cpp,4,decode,tg128\n"
        + GOOD
        + "rpi5,Nameless,,Q4_K_M,,llama.cpp,4,decode,tg128\n"
        + "rpi5,Llama-3.2-3B,3.21,Z9_Z,,llama.cpp,4,decode,tg128\n"
        + "rpi5,Llama-3.2-3B,-3,Q4_0,,llama.cpp,4,decode,tg128\n"
        + "rpi5,Llama-3.2-3B,3.21,Q4_0,many,llama.cpp,4,decode,tg128\n"
        + "rpi5,Llama-3.2-3B,3.21,Q4_0,,llama.cpp,four,decode,tg128\n"
        + "rpi5,Llama-3.2-3B,3.21,Q4_0,,llama.cpp,0,decode,tg128\n"
        + "rpi5,Llama-3.2-3B,3.21,Q4_0,,llama.cpp,4,dreaming,tg128\n"
        + ",Llama-3.2-3B,3.21,Q4_0,,llama.cpp,4,decode,tg128\n"
        + "rpi5,Llama-3.2-3B,3.21,Q4_0,,llama.cpp,4,decode,tg128,too,many\n"
        + GOOD
    )
    found = ask(text)
    assert len(found) == 12
    answered = [i for i, row in enumerate(found) if row["tokens_per_s"]]
    assert answered == [1, 11]
    assert found[1] == found[11]
    reasons = [row["note"] for i, row in enumerate(found) if i not in answered]
    expected = (
        "nowhere", "Nameless", "z9_z", "params_b", "weight_bytes", "four", "threads", "dreaming",
        "device_id", "more fields",
    )  # fmt: skip
    assert all(word in note for word, note in zip(expected, reasons, strict=True)), reasons
    assert all("\n" not in note and note.startswith("not projected") for note in reasons)


def test_blanks_are_filled_and_said():
    (found,) = ask("galaxy_s24_sd8gen3,Qwen3-1.7B,,,,,,,\n")
    assert found["tokens_per_s"]
    for word in ("threads not stated", "engine not stated", "format not stated", "depth not st"):
        assert word in found["note"]


def test_a_table_keeps_its_own_columns_and_loses_no_row(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text(
        "\ufeffdevice_id,model,mine,tokens_per_s\nrpi5,TinyLlama-1.1B,x,99\n\n", "utf-8"
    )
    rows, columns = queries.read(path)
    text = queries.write(rows, columns, queries.answers(rows, DEVICES, roofline.load()))
    (back,) = csv.DictReader(io.StringIO(text))
    assert back["mine"] == "x"
    assert back["tokens_per_s"] not in ("", "99")
    assert list(back)[-8:] == list(queries.ANSWERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column device_id and model"),
        (b"a,b\n1,2\n", "no column device_id and model"),
        (b"\xff\xfe\x00x", "not UTF-8"),
        (b"device_id,model,model\nrpi5,a,b\n", "twice"),
        (b'device_id,model\nrpi5,"unfinished', "no CSV file"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "q.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message) as refused:
        queries.read(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="cannot read"):
        queries.read(tmp_path / "absent.csv")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=9, max_size=9))
def test_no_text_in_any_column_breaks_a_table(cells):
    row = dict(zip(HEAD.strip().split(","), cells, strict=True))
    for device in ("rpi5", cells[0]):
        (found,) = queries.answers([{**row, "device_id": device}], DEVICES, roofline.load())
        assert set(found) == set(queries.ANSWERS)
        assert found["tokens_per_s"] or found["note"]


NUMBERS = (
    "0",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e300",
    "1e-300",
    "1e999",
    "9" * 400,
    "9" * 5000,
    "1_0",
)


@pytest.mark.parametrize("column", ["params_b", "weight_bytes", "threads", "context_or_n", "model"])
@pytest.mark.parametrize("value", NUMBERS)
def test_impossible_numbers_get_a_reason_or_an_honest_interval(column, value):
    base = dict(zip(HEAD.strip().split(","), GOOD.strip().split(","), strict=True))
    for text in (value, f"tg{value}", f"pp{value}", f"tg128 @ d{value}", f"foo-{value}b"):
        (found,) = queries.answers([{**base, column: text}], DEVICES, roofline.load())
        if not found["tokens_per_s"]:
            assert found["note"].startswith("not projected: ")
            assert len(found["note"]) < 12000
            continue
        rate, low, high = (float(found[k]) for k in ("tokens_per_s", "low", "high"))
        assert 0 < low < rate < high < math.inf


def test_a_mixture_of_experts_needs_room_for_all_of_them():
    row = {
        "device_id": "ryzen_7950x", "model": "Qwen3-30B-A3B", "weights_format": "Q4_0",
        "engine": "llama.cpp", "threads": "8", "phase": "decode", "context_or_n": "tg128",
    }  # fmt: skip
    big, small = (
        queries.answers([{**row, "device_id": name}], DEVICES, roofline.load())[0]
        for name in ("ryzen_7950x", "rpi5")
    )
    assert "needs" not in big["note"]
    assert "needs 16." in small["note"]  # 30.5 * 10^9 weights of 4.6 bits


def test_a_model_without_a_cache_takes_no_longer_at_depth():
    row = {
        "device_id": "rpi5", "model": "RWKV-4-3B", "weights_format": "Q4_0",
        "engine": "llama.cpp", "threads": "4", "phase": "decode",
    }  # fmt: skip
    near, far = (
        queries.answers([{**row, "context_or_n": f"tg2 @ d{d}"}], DEVICES, roofline.load())[0]
        for d in (0, 8192)
    )
    assert near["tokens_per_s"] == far["tokens_per_s"]


# ---- lines as people write them --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("llama.cpp b1620", "llama_2023"),
        ("llama.cpp b2794 (May 2024)", "llama_2024"),
        ("llama.cpp b6500", "llama_cpp"),
        ("llama.cpp", "llama_cpp"),
        ("ollama 0.6.2", "llama_cpp"),
        ("llama.cpp Apr-2023", "llama_2023"),
        ("T-MAC on llama.cpp b2794", "tmac"),
        ("ik_llama.cpp Dec-2024", "ik_llama"),
        ("bitnet.cpp 1.0 (Oct 2024)", "bitnet"),
        ("MNN 3.1", "mnn"),
        ("an engine of my own", "other"),
    ],
)
def test_engines_belong_to_generations(name, family):
    assert generations.engine_family(name, []) == family


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("Foo-7B", 7, 7),
        ("foo_360M-chat", 0.36, 0.36),
        ("Moe-30B-A3B", 30, 3),
        ("x-1.5b-it", 1.5, 1.5),
    ],
)
def test_a_model_of_no_table_gets_its_size_from_its_name(name, total, active):
    found = llms.model(name, 0.0, notes := [])
    assert (found.total, found.streamed) == pytest.approx((total, active))
    assert any("in no table" in note for note in notes)


def test_the_table_of_models_hangs_together():
    for pattern, (layers, width, kv, streamed, head, total) in llms._tables()["model"].items():
        assert 0 < head < streamed <= total * 1.01, pattern
        assert layers >= 4, pattern
        assert kv <= 2 * width, pattern
        least = layers * (width * width / 1e9)
        assert streamed > 0.3 * least, pattern


def test_a_prompt_needs_the_head_but_once():
    row = {"model": "Llama-3.2-1B", "weights_format": "Q8_0", "context_or_n": "pp512"}
    line = reported.read({**row, "phase": "prefill"}, load("rpi5"))
    whole = sum(line.setting.work.weights.values())
    assert whole == pytest.approx(1e9 * ((1.24 - 0.263) * 512 + 0.263))


def test_depth_and_threads_are_read():
    row = {"model": "Llama-3.2-1B", "weights_format": "Q8_0", "phase": "decode"}
    for text, depth in (("tg128 @ d4096", 4160), ("context 8k", 8192), ("tg256", 128)):
        work = reported.read({**row, "context_or_n": text}, load("rpi5")).setting.work
        assert work.others == 2 * 16 * 2048 * depth
    half = reported.read({**row, "threads": "n_cores/2"}, load("rk3588")).setting
    assert half.threads == 4
    phone = reported.read(row, load("galaxy_s24_sd8gen3")).setting
    assert phone.threads == 4


# ---- speed -----------------------------------------------------------------------------------


def test_a_grid_agrees_with_its_points_one_by_one():
    seen = observations.published(DEVICES)[:12]
    works = [o.setting.work for o in seen]
    machines = [(load("rpi5"), 4), (load("ryzen_7950x"), 8), (load("apple_m2_max"), 2)]
    fit = roofline.load()
    grid = roofline.seconds(arrays.grid(machines, works, "llama_cpp", fit), fit.names, fit.values)
    alone = [
        arrays.Setting(work=work, device=device, threads=threads, engine="llama_cpp")
        for device, threads in machines
        for work in works
    ]
    np.testing.assert_allclose(grid.total, calibrate.steps(alone, fit), rtol=1e-12)


def test_a_design_space_costs_far_less_a_point_than_a_million_a_second_needs():
    """At least a million points a second on one core that does 20 million additions a second in
    Python; only the ratio is asserted, so that a slow or busy machine does not fail."""
    works = [o.setting.work for o in observations.published(DEVICES)] * 8
    machines = [(device, device.cores) for device in DEVICES.values()]
    fit = roofline.load()

    def sweep() -> int:
        found = arrays.grid(machines, works, "llama_cpp", fit)
        return len(roofline.seconds(found, fit.names, fit.values).total)

    def count() -> int:
        total = 0
        for i in range(1_000_000):
            total += i
        return total

    points = sweep()
    assert points > 200_000
    ratios = []
    for _ in range(5):
        start = time.process_time()
        sweep()
        middle = time.process_time()
        count()
        ratios.append((middle - start) / points / ((time.process_time() - middle) / 1_000_000))
    assert min(ratios) < 20


# ---- one measurement ---------------------------------------------------------------------------


def measured(seconds: float, threads: int = 4) -> correct.Correction:
    setting = next(o.setting for o in observations.published({"rpi5": load("rpi5")}))
    seen = correct.Seen(
        work=setting.work, threads=threads, engine=setting.engine, kernel=setting.kernel,
        seconds=seconds, source="test",
    )  # fmt: skip
    return correct.Correction(device="rpi5", seen=(seen,))


def test_a_measurement_pulls_its_own_point_most_and_narrows_its_interval():
    fit = roofline.load()
    setting = next(o.setting for o in observations.published({"rpi5": load("rpi5")}))
    setting = replace(setting, threads=4)
    projected = float(calibrate.steps([setting], fit)[0])
    known = correct.misses(measured(1.5 * projected), setting.device, fit)
    shift, kept = likeness.adjust(known, setting, fit)
    assert 0.5 * math.log(1.5) < shift < math.log(1.5)
    assert 0.3 < kept < 0.8
    other = replace(setting, engine="mnn")
    less, wider = likeness.adjust(known, other, fit)
    assert 0 < less < shift
    assert kept < wider < 1


def test_a_correction_written_out_reads_back_the_same(tmp_path):
    one = measured(0.25)
    correct.file_of("rpi5", tmp_path).write_text(correct.as_json(one))
    assert correct.load_all(tmp_path) == {"rpi5": one}
    (tmp_path / "x.measured.json").write_text('{"device": "x", "seen": []}')
    with pytest.raises(BadInput, match="is no correction"):
        correct.load_all(tmp_path)


@pytest.mark.parametrize("name", ["attention:110m@int4", "attention:500m@int8", "attention:nano"])
@pytest.mark.parametrize("run", ["tg64", "pp512"])
def test_a_model_known_by_its_size_alone_runs_on_our_engine_as_its_calls_do(name, run):
    recipe = candidates.parse(name)
    shape, fitted, device = candidates.final_shape(recipe), roofline.load(), load("rpi5")
    exact = project.work_of(workload.build(recipe, shape, workload.parse(run)))
    rough = ours.totals(exact.weights, exact.others, shape.layers, shape.width, exact.tokens)
    known, guessed = (
        calibrate.steps(
            [
                arrays.Setting(
                    work=replace(exact, counts=c), device=device, threads=4, engine="numba"
                )
            ],
            fitted,
        )[0]
        for c in (exact.counts, rough)
    )
    assert guessed == pytest.approx(known, rel=0.15)


def test_a_question_about_our_engine_counts_its_work():
    rows = "".join(f"rpi5,Llama-2-7B,,int4,,numba,4,prefill,pp{n}\n" for n in (128, 8192))
    shallow, deep = (float(found["tokens_per_s"]) for found in ask(rows))
    assert 1.2 * deep < shallow
