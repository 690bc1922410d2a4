"""Quality: the engine's score of packed weights is what PyTorch says of the same weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness import candidates, plugins, quality
from harness.errors import BadCheckpoint, BadInput
from harness.make import pack
from harness.training.evaluate import accuracy, answer_loss, held_out_loss
from harness.training.model import from_checkpoint
from tests import models

SHAPE = models.shape(("mcsd", "mcsd"), vocabulary=256)


def trained(form="f32", corpus="pydocs", trained_on=None, shape=SHAPE):
    """Random weights that say they saw a corpus."""
    made = models.checkpoint(shape, form)
    seen = plugins.corpora()[corpus].load().hash if trained_on is None else trained_on
    recipe = replace(made.recipe, corpus=corpus)
    return replace(made, recipe=recipe, provenance={"corpus_hash": seen})


def test_bits_per_byte_are_those_of_the_model_on_the_same_windows():
    checkpoint = trained()
    found = quality.score(checkpoint, blocks=None)
    test = plugins.corpora()["pydocs"].load().test
    wanted = held_out_loss(from_checkpoint(checkpoint), test, SHAPE.context)
    assert found.value == pytest.approx(wanted.bits, rel=1e-4)
    assert found.scored == wanted.tokens
    assert (found.metric, found.flags) == ("bits per byte", ())


@pytest.mark.parametrize(
    ("form", "mixers"), [("int8", ("mcsd", "mcsd")), ("int4", ("mcsd-paper", "mcsd-paper"))]
)
def test_a_packed_candidate_is_scored_in_its_own_arithmetic(form, mixers):
    packed = trained(form, shape=replace(SHAPE, mixers=mixers, ffn="selective"))
    found = quality.score(packed, blocks=20)
    windows = plugins.corpora()["pydocs"].load().test
    count = (windows.size - 1) // SHAPE.context
    starts = np.unique(np.linspace(0, count - 1, 20).astype(int)) * SHAPE.context
    model, losses = from_checkpoint(packed), []
    for start in starts:
        text = windows[start : start + SHAPE.context + 1]
        losses.append(held_out_loss(model, text, SHAPE.context).bits)
    assert found.value == pytest.approx(np.mean(losses), rel=0.01)
    assert found.value != pytest.approx(np.mean(losses), rel=1e-7), "activations are rounded too"
    wanted = np.std(losses, ddof=1) / len(losses) ** 0.5
    assert found.standard_error == pytest.approx(wanted, rel=0.1)


def test_recall_is_the_share_of_right_answers():
    corpus = plugins.corpora()["recall"]
    checkpoint = trained(corpus="recall", shape=replace(SHAPE, context=corpus.example))
    found = quality.score(checkpoint, blocks=40)
    splits = corpus.load()
    tokens = splits.test if splits.test.size > corpus.example else splits.validation
    with torch.no_grad():
        wanted = accuracy(from_checkpoint(checkpoint), tokens[: 40 * corpus.example], corpus)
    assert found.value == pytest.approx(wanted, abs=0.01)
    assert found.metric == "accuracy"


def test_what_an_answer_costs_is_what_the_model_says_of_the_asked_tokens():
    corpus = plugins.corpora()["facts"]
    checkpoint = trained(corpus="facts", shape=replace(SHAPE, context=corpus.example))
    found = quality.score(checkpoint, blocks=40)
    tokens = corpus.load().test[: 40 * corpus.example]
    wanted = answer_loss(from_checkpoint(checkpoint), tokens, corpus)
    assert (found.metric, found.blocks, wanted.tokens) == ("bits per answer", 40, 40)
    assert found.value == pytest.approx(wanted.bits, rel=1e-4)


def test_a_score_on_other_bytes_than_trained_on_is_flagged():
    found = quality.score(trained(trained_on="0123456789abcdef"), blocks=3)
    assert found.flags == (quality.OTHER_BYTES,)
    assert found.trained_on != found.corpus_hash


def test_random_weights_have_no_quality():
    with pytest.raises(BadInput, match=r"random weights: speed only"):
        quality.score(models.checkpoint(SHAPE))
    recipe = candidates.parse("mcsd:110m")
    assert recipe.tokens == 0


def test_logits_that_overflow_are_an_error_and_no_score():
    checkpoint = trained()
    arrays = {**checkpoint.arrays, "head": checkpoint.arrays["head"] * np.float32(3e38)}
    with np.errstate(over="ignore"), pytest.raises(BadCheckpoint, match="not finite"):
        quality.score(replace(checkpoint, arrays=arrays), blocks=3)


def test_a_text_too_short_for_two_windows_is_refused():
    long = replace(SHAPE, context=10**7)
    with pytest.raises(BadInput, match="no two windows of 10000000"):
        quality.score(trained(shape=long), blocks=3)


def test_progress_counts_every_window():
    seen = []
    quality.score(trained(), blocks=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_packing_by_make_is_what_the_format_packs():
    plain = trained()
    packed = pack(plain, "int8")
    name = "layers.0.ffn.up"
    wanted = plugins.formats()["int8"].pack(plain.arrays[name])
    np.testing.assert_array_equal(packed.arrays[name], wanted[""])
    np.testing.assert_array_equal(packed.arrays[f"{name}.scale"], wanted["scale"])
    assert packed.arrays["norm"].dtype == np.float32
    assert packed.formats[name] == "int8"
    assert "norm" not in packed.formats
