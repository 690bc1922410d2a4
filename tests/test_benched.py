"""What llama-bench writes, in each of its forms, as lines; and what a correction makes of them."""

from __future__ import annotations

import json

import pytest

from harness import benched, correct, reported
from harness.errors import BadInput
from targets.profile import load

MARKDOWN = """
| model                  |     size |   params | backend | threads |        test |          t/s |
| ---------------------- | -------: | -------: | ------- | ------: | ----------: | -----------: |
| llama 3B Q4_K - Medium | 1.87 GiB |   3.21 B | CPU     |       4 |       pp512 | 12.34 ± 0.05 |
| llama 3B Q4_K - Medium | 1.87 GiB |   3.21 B | CPU     |       4 | tg128 @ d96 |  4.90 ± 0.01 |
| llama 3B Q4_K - Medium | 1.87 GiB |   3.21 B | CPU     |       4 | pp512+tg128 |  8.90 ± 0.01 |
| llama 3B Q4_K - Medium | 1.87 GiB |   3.21 B | Vulkan  |       4 |       tg128 | 99.00 ± 0.01 |

build: 0123abc (6500)
"""
NATIVE = {
    "build_number": 6500,
    "backends": "CPU",
    "model_filename": "models/Llama-3.2-3B-Instruct-Q4_K_M.gguf",
    "model_type": "llama 3B Q4_K - Medium",
    "model_size": 2013286400,
    "model_n_params": 3212749888,
    "n_threads": 4,
    "n_gpu_layers": 99,
    "n_depth": 0,
}
ROWS = [
    {**NATIVE, "n_prompt": 512, "n_gen": 0, "avg_ts": 12.34},
    {**NATIVE, "n_prompt": 0, "n_gen": 128, "n_depth": 96, "avg_ts": 4.9},
    {**NATIVE, "n_prompt": 512, "n_gen": 128, "avg_ts": 8.9},
    {**NATIVE, "n_prompt": 0, "n_gen": 128, "avg_ts": 99, "backends": "Vulkan"},
]


def as_csv(rows) -> str:
    head = list(rows[0])
    lines = [",".join(f'"{row[key]}"' for key in head) for row in rows]
    return "\n".join([",".join(head), *lines])


FORMS = {
    "bench.md": MARKDOWN,
    "rows_alone.md": "\n".join(
        r for r in MARKDOWN.splitlines() if "t/s" not in r and "--" not in r
    ),
    "bench.json": json.dumps(ROWS),
    "bench.jsonl": "\n".join(map(json.dumps, ROWS)),
    "bench.csv": as_csv(ROWS),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_llama_bench_tells_the_same(tmp_path, name):
    path = tmp_path / name
    path.write_text(FORMS[name], "utf-8")
    lines = benched.read(path, "rpi5")
    assert [(x["phase"], x["context_or_n"], float(x["tokens_per_s"])) for x in lines] == [
        ("prefill", "pp512", 12.34),
        ("decode", "tg128 @ d96", 4.9),
    ]
    for line in lines:
        assert line["weights_format"] == "q4_k_m"
        assert 1.8 * 2**30 < float(line["weight_bytes"]) < 1.9 * 2**30
        work = reported.read(line, load("rpi5")).setting.work
        assert work.layers == 28  # found in the table of models, by name or by size
        assert not any("in no table" in note for note in reported.read(line, load("rpi5")).notes)


def test_a_table_of_our_columns_is_taken_as_it_is(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "model,weights_format,engine,threads,phase,context_or_n,tokens_per_s\n"
        "Qwen3-0.6B,Q8_0,llama.cpp,4,decode,tg64,21.5\n"
    )
    (line,) = benched.read(path, "rpi5")
    assert line["device_id"] == "rpi5"
    found = correct.of_lines([line], load("rpi5"))
    assert found.seen[0].seconds == pytest.approx(1 / 21.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no measurement"),
        ("hello\nworld\n", "no table of llama-bench"),
        ("[1, 2", "no table of llama-bench"),
        ("[1, 2]", "1 is no row of it"),
        ('{"avg_ts": null, "n_gen": 3}', "'None' is no number of tokens per second"),
        ("| a | b |\n|---|---|\n| 1 |\n", "a row has 1 cells"),
        ("| model | test | t/s |\n|---|---|---|\n| x | tg1 | fast |\n", "'fast' is no number"),
    ],
)
def test_what_is_no_measurement_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "bench"
    path.write_text(content)
    with pytest.raises(BadInput, match=message) as refused:
        benched.read(path, "rpi5")
    assert "\n" not in str(refused.value)


def test_a_rate_that_is_no_rate_is_refused():
    line = {"model": "Qwen3-0.6B", "weights_format": "Q8_0", "phase": "decode", "tokens_per_s": "0"}
    with pytest.raises(BadInput, match="row 1: tokens_per_s"):
        correct.of_lines([line], load("rpi5"))
