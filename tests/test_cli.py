"""What a user types and what comes back: one line for a mistake, tables on stdout."""

import json

import pytest

from harness import candidates, store
from harness import checkpoint as checkpoints
from harness.cli import main
from harness.engines.numba import random
from tests import rows as fake


@pytest.fixture
def edgewise(monkeypatch, capsys):
    """Run a command line; returns exit code, stdout, stderr."""
    for name in (
        "EDGEWISE_DEVICES",
        "EDGEWISE_PLUGINS",
    ):  # restored afterwards, though main sets it
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["edgewise", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


@pytest.fixture
def results(tmp_path):
    for row in fake.many(sizes=("nano",), devices=("host",), workloads=("tg64", "ttft")):
        store.write(tmp_path / "results" / "vm" / "rows", row)
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("project", "--device", "nope", "--candidate", "mcsd:nano"), "unknown device 'nope'"),
        (("project", "--device", "rpi5", "--candidate", "mcsd-nano"), "is not of the form"),
        (("project", "--table", "q.csv", "--device", "rpi5"), "goes with --out alone"),
        (("project", "--table", "none.csv"), "cannot read none.csv"),
        (("calibrate", "--device", "rpi5", "--from", "none.md"), "cannot read none.md"),
        (("project", "--device", "rpi5", "--candidate", "mcsd:giga"), "unknown size 'giga'"),
        (("generate", "mcsd:nano@int3"), "unknown step 'int3'"),
        (("generate", "mcsd:nano@int8+prune50"), "steps come in the order"),
        (("list", "planets"), "cannot list 'planets'; known: devices"),
        (("verify", "fft"), "unknown kernel 'fft'"),
        (("peers", "chess"), "unknown group 'chess'; known: "),
        (("table", "--results", "no-such-folder"), "does not exist"),
        (("sweep", "none.toml", "--dry-run"), "none.toml does not exist"),
        (("recommend", "--max-memory", "64 MiBs"), "64 MiBs"),
        (("train", "mcsd:110m"), "has no training budget"),
        (("export", "mcsd:nano", "--format", "gguf"), "no 'mcsd' mixer"),
        (("export", "attention:nano@sparse50", "--format", "gguf"), "format 'sparse50'"),
        (("export", "attention:micro", "--format", "gguf"), "is not trained on pydocs"),
        (("--devices", "/no/such", "target", "rpi5"), "/no/such"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(edgewise, words, hint):
    code, out, err = edgewise(*words)
    assert code == 2
    assert hint in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_an_export_is_named_after_its_candidate_and_says_what_it_is(
    edgewise, tmp_path, monkeypatch
):
    pytest.importorskip("gguf")
    monkeypatch.chdir(tmp_path)
    code, out, _ = edgewise("export", "attention:nano@int4", "--format", "gguf")
    path = tmp_path / "attention-nano_int4.gguf"
    assert (code, path.read_bytes()[:4]) == (0, b"GGUF")
    assert f"wrote {path.name}: Q4_0, {path.stat().st_size:,} bytes" in out
    _, out, _ = edgewise("export", "attention:17m@int8g32", "--format", "gguf", "--output", "x")
    assert "Q8_0" in out
    assert "random weights: speed only" in out


def test_a_truncated_checkpoint_is_refused_and_kept(edgewise, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    recipe = candidates.parse("mcsd:nano", seed=0)
    path = checkpoints.path_of(recipe)
    checkpoints.save(random.checkpoint(recipe), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    code, _, err = edgewise("generate", "mcsd:nano")
    assert code == 2
    assert "truncated or malformed" in err
    assert path.read_bytes() == whole[: len(whole) // 2]


def test_a_projection_names_what_binds_it_and_its_interval(edgewise):
    code, out, _ = edgewise(
        "project", "--device", "rpi5", "--candidate", "mcsd:110m@int4", "--json"
    )
    assert code == 0
    rows = json.loads(out)
    assert {row["workload"] for row in rows} == {"tg64", "tg64 @ d4096", "pp128"}
    for row in rows:
        assert row["seconds_evidence"] == "projected"
        assert row["seconds_low"] < row["seconds"] < row["seconds_high"]
    bounds = {row["workload"]: row["bound"] for row in rows}
    assert (bounds["tg64"], bounds["pp128"]) == ("memory", "compute")
    _, text, _ = edgewise("project", "--device", "rpi5", "--candidate", "mcsd:110m@int4")
    assert all(bound in text.partition("kind: of time")[0] for bound in bounds.values())


def test_a_table_of_stored_rows_marks_what_was_measured(edgewise, results):
    code, out, _ = edgewise("table", "--results", results, "--workload", "tg64")
    assert code == 0
    assert "attention:nano" in out
    assert "measured" in out


def test_a_question_is_answered_with_projections_marked(edgewise, results):
    code, out, _ = edgewise(
        "recommend", "--results", results, "--device", "rpi5", "--min-tokens-per-second", "20"
    )
    assert code == 0
    assert "PROJECTED" in out
    assert "CPU execution" in out


def test_a_broken_row_is_named_and_passed_over(edgewise, results):
    (results / "vm" / "rows" / "broken.json").write_text('{"candidate": ')
    code, out, err = edgewise("table", "--results", results)
    assert code == 0
    assert "broken.json" in err
    assert "attention:nano" in out


def test_publish_refuses_rows_of_a_smoke_run(edgewise, tmp_path):
    store.write(tmp_path / "rows", fake.row(quick=True))
    code, _, err = edgewise("publish", "--results", tmp_path)
    assert code == 2
    assert "quick" in err


def test_generating_writes_the_prompt_and_as_many_bytes_as_asked(
    monkeypatch, tmp_path, capfdbinary
):
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    recipe = candidates.parse("mcsd:nano")
    checkpoints.save(random.checkpoint(recipe), checkpoints.path_of(recipe))
    monkeypatch.setattr(
        "sys.argv", ["edgewise", "generate", "mcsd:nano", "--prompt", "abc", "--tokens", "7"]
    )
    with pytest.raises(SystemExit):
        main()
    out = capfdbinary.readouterr().out
    assert out.startswith(b"abc")
    assert len(out) == 3 + 7 + 1


def test_the_same_seed_generates_the_same_text():
    import numpy as np

    from harness.generate import choose

    logits = np.random.default_rng(1).standard_normal(256).astype(np.float32)
    first = [choose(logits, 0.8, np.random.default_rng(5)) for _ in range(3)]
    assert len(set(first)) == 1
    assert choose(logits, 0.0, np.random.default_rng(0)) == logits.argmax()


def test_a_small_sweep_ends_with_the_figures_its_rows_allow(tmp_path, capsys):
    from harness import sweep
    from harness.cli import summary

    plan = sweep.Sweep(title="small", measure=())
    few = [fake.row("mcsd", "nano", "int8"), fake.row("attention", "nano", "int8")]
    summary.summarise(few, plan, tmp_path, "edgewise sweep")
    assert (tmp_path / "table.md").exists()
    assert (tmp_path / "figures" / "quality_latency.png").exists()
    assert "a figure was left out" in capsys.readouterr().err
