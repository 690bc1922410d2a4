"""Corpora: splits that do not leak, content that is checked, recall that can be solved."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from harness import plugins
from harness.corpora import _examples, _fetch, copy, facts, pydocs, recall
from harness.errors import BadInput, HarnessError

SHARED = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("EDGEWISE_DATA", SHARED))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="EDGEWISE_DATA is not set")


def topics() -> dict[str, str]:
    from pydoc_data.topics import topics as found

    return dict(found)


def test_pydocs_is_english_prose_split_about_eight_one_one():
    splits = pydocs.load()
    total = len(splits.train) + len(splits.validation) + len(splits.test)
    assert total > 300_000
    assert 0.7 < len(splits.train) / total < 0.9
    assert len(splits.validation) > 10_000
    assert len(splits.test) > 10_000
    assert b"The Python" in splits.train.tobytes()


def test_a_topic_stays_in_its_split_when_others_come_and_go():
    some = topics()
    before = {key: pydocs.split_of(key) for key in some}
    del some["lambda"]
    some["a new statement"] = "text"
    assert all(pydocs.split_of(key) == before[key] for key in some if key in before)


def test_no_paragraph_of_the_held_out_topics_is_trained_on():
    splits = pydocs.load()

    def paragraphs(array: np.ndarray) -> set[str]:
        plain = (" ".join(p.split()) for p in array.tobytes().decode().split("\n\n"))
        return {p for p in plain if len(p) >= pydocs.LONG}

    train, validation, test = (
        paragraphs(a) for a in (splits.train, splits.validation, splits.test)
    )
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_a_changed_topic_changes_the_hash():
    some = topics()
    before = pydocs.of_topics(some).hash
    assert pydocs.of_topics(dict(reversed(some.items()))).hash == before
    some["lambda"] += "!"
    assert pydocs.of_topics(some).hash != before


@needs_data
def test_tinyshakespeare_is_cut_at_nine_tenths(monkeypatch):
    monkeypatch.setenv(_fetch.DATA, str(DATA))
    splits = plugins.corpora()["tinyshakespeare"].load()
    assert len(splits.train) + len(splits.validation) == 1_115_394
    assert len(splits.validation) == 111_540
    assert splits.train[:13].tobytes() == b"First Citizen"


@needs_data
def test_wikitext2_is_read_from_the_users_folder(monkeypatch):
    monkeypatch.setenv(_fetch.DATA, str(DATA))
    splits = plugins.corpora()["wikitext2"].load()
    assert len(splits.train) + len(splits.validation) == 1_121_681
    assert len(splits.test) == 1_256_449


def test_a_file_with_other_content_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("To be")
    monkeypatch.setenv(_fetch.DATA, str(tmp_path))
    with pytest.raises(BadInput, match="EDGEWISE_DATA") as caught:
        plugins.corpora()["tinyshakespeare"].load()
    assert "\n" not in str(caught.value)
    assert "86c4e6aa9db7c042" in str(caught.value)


def test_a_data_folder_that_does_not_exist_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(_fetch.DATA, str(tmp_path / "absent"))
    with pytest.raises(HarnessError, match="not a folder"):
        plugins.corpora()["wikitext2"].load()


def test_no_network_is_one_line_that_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv(_fetch.DATA, raising=False)
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="EDGEWISE_DATA") as caught:
        _fetch.fetch("some/file.txt", "http://127.0.0.1:9/file.txt", "0" * 64)
    assert "\n" not in str(caught.value)
    assert "some/file.txt" in str(caught.value)


def test_a_fetched_file_is_kept_and_checked(tmp_path, monkeypatch):
    import functools
    import hashlib
    import http.server
    import threading

    served = tmp_path / "served"
    served.mkdir()
    (served / "text").write_bytes(b"one text")
    quiet = type(
        "Quiet",
        (http.server.SimpleHTTPRequestHandler,),
        {"log_message": lambda *_: None},
    )
    handler = functools.partial(quiet, directory=str(served))
    monkeypatch.delenv(_fetch.DATA, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    sha256 = hashlib.sha256(b"one text").hexdigest()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/text"
        assert urllib.request.urlopen(url).read() == b"one text"
        with pytest.raises(BadInput):
            _fetch.fetch("a/text", url, "0" * 64)
        assert _fetch.fetch("a/text", url, sha256) == b"one text"
        server.shutdown()
    assert _fetch.fetch("a/text", url, sha256) == b"one text"


def test_every_corpus_declares_splits_or_examples():
    corpora = plugins.corpora()
    assert {"pydocs", "tinyshakespeare", "wikitext2", "recall"} <= set(corpora)
    for corpus in corpora.values():
        asks = corpus.metric in ("accuracy", "bits per answer")
        assert asks == bool(corpus.example) == bool(corpus.scored)


@pytest.mark.parametrize("pairs", [1, 3, 8])
def test_every_recall_answer_was_told_before(pairs):
    tokens = recall.examples(np.random.default_rng(0), 50, pairs)
    assert tokens.shape == (50, 4 * pairs)
    for example in tokens:
        told = dict(example[: 2 * pairs].reshape(-1, 2))
        assert len(told) == pairs
        for position in recall.scored(pairs):
            assert told.pop(example[position]) == example[position + 1]
        assert not told


def test_recall_keys_and_values_share_no_token():
    tokens = recall.examples(np.random.default_rng(1), 200, 8)
    assert tokens[:, ::2].max() < 32 <= tokens[:, 1::2].min()
    assert tokens.max() < recall.VOCABULARY
    assert len(np.unique(tokens)) == recall.VOCABULARY


def test_recall_training_starts_easy_and_ends_as_it_is_tested():
    pairs = [_examples.stage(recall.CURRICULUM, gone) for gone in (0.0, 0.3, 0.99, 1.0)]
    assert pairs == [2, 4, 8, 8]
    inputs, targets = recall.sample(np.random.default_rng(2), 12, 256, 0.9)
    assert inputs.shape == targets.shape == (96, 32)
    asked = targets != _examples.NOT_SCORED
    assert asked.sum() == 96 * 8
    assert (targets[asked] == inputs[:, 1:][asked[:, :-1]]).all()


def test_recall_is_the_same_everywhere_and_its_test_is_not_its_validation():
    first, second = recall.load(), recall.load()
    assert first.hash == second.hash
    examples = {part.tobytes() for part in first.test.reshape(-1, 32)}
    assert not any(part.tobytes() in examples for part in first.validation.reshape(-1, 32))


@pytest.mark.parametrize("gone", [0.0, 0.45, 0.99])
def test_far_recall_asks_what_was_told_before_the_fillers(gone):
    lengths = set()
    for seed in range(20):
        inputs, targets = recall.sample_far(np.random.default_rng(seed), 16, 256, gone)
        lengths.add(inputs.shape[1])
        asked = targets != _examples.NOT_SCORED
        pairs = asked[0].sum()
        told = inputs[:, : 2 * pairs].reshape(len(inputs), pairs, 2)
        between = inputs[:, 2 * pairs : inputs.shape[1] - 2 * pairs]
        assert (between >= recall.VOCABULARY).all()
        for row in range(3):
            known = dict(told[row])
            found = zip(inputs[row][asked[row]], targets[row][asked[row]], strict=True)
            assert {key: known[key] for key in known} == dict(found)
    assert len(lengths) > 5, "steps differ in pairs and distance"


def test_a_copy_is_asked_from_the_sign_on():
    tokens = copy.examples(np.random.default_rng(0), 5, 7)
    _, targets = _examples.questions(tokens, copy.scored(7))
    assert (tokens[:, 7] == copy.OVER).all()
    assert (tokens[:, :7] < copy.OVER).all()
    assert (targets[:, 7:14] == tokens[:, :7]).all()
    assert (targets[:, [*range(7), 14]] == _examples.NOT_SCORED).all()


@pytest.mark.parametrize("name", ["recall", "recall-far", "copy"])
def test_harder_examples_are_the_same_everywhere_and_were_not_tuned_on(name):
    corpus = plugins.corpora()[name]
    once, again = corpus.series(), corpus.series()
    held_out = corpus.load().validation.reshape(-1, corpus.example)
    for axis, steps in once.items():
        assert list(steps) == sorted(steps)
        for at, examples in steps.items():
            assert (examples.tokens == again[axis][at].tokens).all()
            assert examples.tokens.max() < corpus.vocabulary
            assert examples.scored[-1] + 1 < examples.tokens.shape[1]
            if examples.tokens.shape[1] == corpus.example:
                assert not (examples.tokens[:, None] == held_out).all(-1).any()
    lengths = [e.tokens.shape[1] for steps in once.values() for e in steps.values()]
    assert corpus.example in lengths, "one of them is what the corpus is scored on"


def test_every_key_is_a_fact_once_and_values_say_nothing_about_keys():
    known = facts.facts(0)
    first, second, value = known[:, 2], known[:, 3], known[:, 5]
    pairs = first * facts.SYMBOLS + second
    assert np.array_equal(np.sort(pairs), np.arange(facts.SYMBOLS**2))
    assert max(first.max(), second.max()) < value.min() <= value.max() < facts.SIGN
    assert (known[:, facts.ASKED] == facts.SIGN).all()
    assert facts.SIGN < known[:, :2].min() <= known[:, :2].max() < facts.VOCABULARY
    for half in (first, second):  # means of as many values each, whose spread chance explains
        means = np.bincount(half, value) / facts.SYMBOLS
        assert means.std() == pytest.approx((facts.SYMBOLS / 12) ** 0.5, rel=0.25)


def test_training_asks_for_the_facts_that_are_scored_and_tuning_for_others():
    corpora = plugins.corpora()
    inputs, targets = corpora["facts"].sample(np.random.default_rng(0), 32, 6, 0.5)
    assert inputs.shape == targets.shape == (32, 6)
    held = {bytes(row[2:]) for row in corpora["facts"].load().test.reshape(-1, 6)}
    assert len(held) == facts.SYMBOLS**2
    assert all(bytes(row[2:]) in held for row in inputs.astype(np.uint8))
    assert len(np.unique(inputs[:, :2])) == facts.FILLERS, "fillers are drawn afresh"
    assert (targets[:, facts.ASKED] == inputs[:, 5]).all()
    assert (np.delete(targets, facts.ASKED, axis=1) == _examples.NOT_SCORED).all()
    other = {bytes(row[2:]) for row in corpora["facts-tuning"].load().test.reshape(-1, 6)}
    assert len(held & other) < 2 * len(held) / facts.SYMBOLS
