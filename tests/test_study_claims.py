"""Intervals, verdicts and the words of an answer follow from the trials."""

import csv
import io
from dataclasses import replace

import pytest
from scipy import stats

from harness import store, sweep
from harness.cli import main
from harness.errors import BadRow
from harness.study import answer, claims, loading, plan, publish, rows
from tests.studies import TEXT, stored, trial, trials

ATTENTION = (1.65, 1.64, 1.66)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "corpus_hash", lambda name: f"hash of {name}")
    path = tmp_path / "study.toml"
    path.write_text(TEXT)
    return loading.load(path)


def test_a_difference_has_the_interval_of_the_paired_t_test(study):
    ours = (1.58, 1.56, 1.59)
    known = trials(study, {"attention": ATTENTION, "mcsd": ours})
    found = claims.estimate(study, known, "mcsd - attention")
    expected = stats.ttest_rel(ours, ATTENTION).confidence_interval(0.95)
    assert found.value == pytest.approx(sum(ours) / 3 - sum(ATTENTION) / 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.seeds == 3


def test_only_seeds_that_both_sides_have_are_paired(study):
    known = trials(study, {"attention": ATTENTION[:2], "mcsd": (1.5, 1.5, 9.0)})
    found = claims.estimate(study, known, "mcsd - attention")
    assert found.seeds == 2
    assert found.value == pytest.approx(1.5 - 1.645)


@pytest.mark.parametrize(
    ("low", "high", "bar", "met"),
    [
        (-0.09, -0.07, "<= -0.06", "yes"),
        (-0.09, -0.05, "<= -0.06", "unresolved"),
        (-0.05, -0.01, "<= -0.06", "no"),
        (0.96, 0.99, ">= 0.95", "yes"),
        (0.90, 0.99, ">= 0.95", "unresolved"),
        (0.90, 0.94, ">= 0.95", "no"),
        (None, None, "<= 5", "unresolved"),
    ],
)
def test_a_bar_is_met_only_by_the_whole_interval(low, high, bar, met):
    known = claims.Estimate(value=0.5, low=low, high=high, seeds=3)
    assert claims.met(known, bar) == met


def test_one_seed_resolves_nothing(study):
    known = trials(study, {"attention": (1.65,), "mcsd": (1.0,)})
    found = claims.verdicts(study, known)[0]
    assert found.estimate.value == pytest.approx(-0.65)
    assert found.met == "unresolved"
    said = answer.sentence(study, known, study.line[0])
    assert said == "Not resolved with one seed: mcsd - attention is -0.65."


def test_the_summary_has_the_columns_that_were_asked_for(study):
    known = trials(study, {"attention": ATTENTION, "mcsd": (1.56, 1.55, 1.57)})
    lines = list(csv.DictReader(io.StringIO(claims.summary(claims.verdicts(study, known)))))
    assert list(lines[0]) == ["claim", "value", "low", "high", "bar", "seeds", "met"]
    assert lines[0]["met"] == "yes"
    assert float(lines[0]["value"]) == pytest.approx(-0.09)
    assert (lines[1]["value"], lines[1]["seeds"], lines[1]["met"]) == ("", "0", "unresolved")


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        ((1.56, 1.55, 1.57), "MCSD wins by 0.090 (0.090 to 0.090, 3 seeds)."),
        ((1.75, 1.74, 1.76), "MCSD loses by 0.100."),
        ((1.60, 1.70, 1.66), "Nobody can tell: +0.003."),
    ],
)
def test_the_words_of_the_answer_follow_from_the_interval(study, ours, words):
    known = trials(study, {"attention": ATTENTION, "mcsd": ours})
    assert answer.sentence(study, known, study.line[0]) == words


def test_the_hours_of_a_study_count_each_training_once(study):
    arm = study.arm[0]
    plain, packed = (plan.point(study, arm, step, "windows", 0) for step in ("", "int8"))
    tuned = replace(packed, recipe=replace(packed.recipe, steps=("prune50",)))
    taught = replace(packed, recipe=replace(packed.recipe, steps=("distil",)))
    known = [
        trial(plain, 1.6, training_seconds=100.0, checkpoint_hash="a"),
        trial(plain, 1.5, training_seconds=100.0, checkpoint_hash="a", protocol="sliding"),
        trial(packed, 1.6, training_seconds=100.0, checkpoint_hash="b"),
        trial(tuned, 1.6, training_seconds=130.0, checkpoint_hash="c"),
        trial(taught, 1.6, training_seconds=150.0, checkpoint_hash="d", teacher="micro"),
    ]
    assert answer.training_seconds(known) == 100 + 30 + 150


def test_the_page_and_its_tables_follow_from_the_rows_alone(study, tmp_path):
    known = trials(
        study,
        {
            "attention": ATTENTION,
            "mcsd": (1.75, 1.74, 1.76),
            "attention@int8": (1.651, 1.641, 1.661),
            "mcsd@int8": (1.56, 1.55, 1.57),
        },
    )
    first = publish.publish(study, known, tmp_path / "a", "edgewise publish", None)
    publish.publish(study, known, tmp_path / "b", "edgewise publish", None)
    for path in first.paths:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    tables = tmp_path / "a" / "tables"
    assert (
        "`mcsd` | `attention` | characters, window 64 | windows | +0.1000"
        in (tables / "where_the_reference_wins.md").read_text()
    )
    # within the bytes of attention@int8 the best of the other side is mcsd@int8, which wins
    budget = (tables / "equal_bytes.md").read_text().splitlines()
    assert any("`attention@int8`" in x and "`mcsd@int8`" in x and "| better |" in x for x in budget)
    page = (tmp_path / "a" / "README.md").read_text()
    assert page.startswith(f"# {study.title}")
    assert "MCSD loses by 0.100." in page
    for path in first.paths[:-1]:
        assert path.relative_to(tmp_path / "a").as_posix() in page


def test_publish_needs_nothing_but_the_file_and_its_rows(study, tmp_path, monkeypatch, capsys):
    stored(study, tmp_path / "study" / "rows", {"attention": ATTENTION, "mcsd": (1.5, 1.49, 1.52)})
    words = ["edgewise", "publish", str(tmp_path / "study.toml"), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "MCSD wins by 0.147" in capsys.readouterr().out
    assert "MCSD wins by 0.147" in (tmp_path / "study" / "README.md").read_text()


def test_rows_of_a_study_are_no_rows_of_a_device(study, tmp_path):
    stored(study, tmp_path, {"attention": ATTENTION})
    assert store.read(tmp_path) == ([], [])


def test_a_row_says_all_of_its_recipe_and_is_read_back_as_it_was(study, tmp_path):
    stored(study, tmp_path / "rows", {"mcsd@int8": (1.5,)})
    (path,) = (tmp_path / "rows").iterdir()
    found = rows.load(path)
    assert found.recipe == plan.recipe(study.arm[1], "int8", 0)
    assert found.recipe.shape.hidden == 304
    path.write_text(path.read_text().replace('"seed": 0', '"seed": "none"', 1))
    with pytest.raises(BadRow, match="seed"):
        rows.load(path)


@pytest.mark.parametrize("path", [p for p in sweep.SWEEPS.glob("*.toml") if loading.is_study(p)])
def test_our_own_studies_name_nothing_that_there_is_not(path):
    study = loading.load(path)
    assert study.claim
    assert len({claim.claim for claim in study.claim}) == len(study.claim)
    for line in study.line:
        for words in (line.wins, line.loses, line.unresolved):
            assert words.format(value=1, size=1, low=1, high=1, least=1, most=1, seeds=1, plain=1)
