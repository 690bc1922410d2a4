"""How studies score agrees with itself: parts of a text add up to the whole of it."""

from dataclasses import replace

import numpy as np
import pytest

from harness import candidates, plugins
from harness.corpora._splits import splits
from harness.engines.numba import random
from harness.errors import BadInput
from harness.study.protocols import PROTOCOLS, figures

SMALL = {"layers": 1, "width": 32, "hidden": 64, "context": 16, "batch": 4}
TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n" * 40


@pytest.fixture
def weights(monkeypatch):
    """Random weights that pass for trained ones, and a short text of the 65 characters."""
    letters = np.frombuffer(bytes(range(32, 97)), np.uint8)
    tokens = (np.frombuffer(TEXT.encode(), np.uint8) % 65).tobytes()
    spec = replace(
        plugins.corpora()["characters"],
        load=lambda: splits(tokens, tokens, tokens),
        symbols=letters.tobytes,
    )
    monkeypatch.setitem(plugins.corpora(), "characters", spec)

    def make(name, **changes):
        mixer = name.split("+")[0].split(":")[0]
        recipe = candidates.parse(
            name, corpus="characters", changes={**SMALL, "mixers": (mixer,), **changes}
        )
        known = {"corpus_hash": spec.load().hash}
        return replace(random.checkpoint(recipe), provenance=known)

    return make


def test_what_tokens_cost_by_position_adds_up_to_the_score(weights):
    scored = PROTOCOLS["positions"](weights("mcsd:nano"))
    places = [0.0, *(x for x, _, _ in scored.curves["position"])]
    assert places[-1] == 16 * 16
    widths = np.diff(places)
    mean = sum(w * y for w, (_, y, _) in zip(widths, scored.curves["position"], strict=True))
    assert mean / widths.sum() == pytest.approx(figures(scored.quality)["nats"], rel=1e-6)


def test_a_stack_that_forgets_nothing_cannot_be_carried(weights):
    with pytest.raises(BadInput, match="cannot be"):
        PROTOCOLS["carried"](weights("attention:nano"))


def test_random_weights_do_not_drift(weights):
    scored = PROTOCOLS["carried"](weights("mcsd:nano"))
    drift, low, high = (scored.figures[name] for name in ("drift", "drift_low", "drift_high"))
    assert low < drift < high
    assert low < 0.02
    assert high > -0.02


def test_active_fractions_by_difficulty_have_the_mean_of_the_text(weights):
    scored = PROTOCOLS["activity"](weights("mcsd+selective:nano", group=16))
    tenths = scored.curves["difficulty"]
    assert [x for x, _, _ in tenths] == sorted(x for x, _, _ in tenths)
    assert len(tenths) == 10
    assert np.mean([y for _, y, _ in tenths]) == pytest.approx(scored.figures["active"], abs=0.01)
    nats = figures(scored.quality)["nats"]
    assert np.mean([x for x, _, _ in tenths]) == pytest.approx(nats, abs=0.01)


def test_the_passage_is_the_texts_own_bytes(weights):
    passage = PROTOCOLS["activity"](weights("mcsd+selective:nano", group=16)).curves["passage"]
    symbols = bytes(range(32, 97))
    expected = [symbols[letter % 65] for letter in TEXT.encode()[: len(passage)]]
    assert [int(letter) for letter, _, _ in passage] == expected
    assert all(0 <= share <= 1 for _, share, _ in passage)
