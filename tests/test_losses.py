"""Protocols: which tokens each of them asks, after how much context, and at what cost."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness import losses, quality
from harness.errors import BadInput, UnknownName
from harness.losses import Stretch
from harness.reading import GIVEN
from harness.training.evaluate import held_out_loss
from harness.training.model import from_checkpoint
from tests import models

SHAPE = models.shape(("mcsd", "mcsd-paper"), context=16)
TEXT = np.random.default_rng(3).integers(0, SHAPE.vocabulary, 500).astype(np.uint8)


@pytest.mark.parametrize("mixers", [("mcsd", "mcsd"), ("attention", "mcsd")])
@pytest.mark.parametrize("times", [1, 2, 4, 16])
def test_windows_of_any_length_cost_what_pytorch_says(mixers, times):
    checkpoint = models.checkpoint(replace(SHAPE, mixers=mixers))
    found = losses.of(checkpoint, TEXT[:], window=12 * times)
    wanted = held_out_loss(from_checkpoint(checkpoint), TEXT, 12 * times)
    assert found.nats.size == wanted.tokens
    assert found.nats.mean() == pytest.approx(wanted.nats, rel=1e-5)


@pytest.mark.parametrize("mixer", ["mcsd", "attention"])
def test_sliding_asks_each_token_once_with_the_context_it_names(mixer):
    checkpoint = models.checkpoint(replace(SHAPE, mixers=(mixer, mixer)))
    found = losses.of(checkpoint, TEXT, "sliding")
    assert found.places.tolist() == list(range(1, TEXT.size))
    assert found.read[:16].tolist() == list(range(1, 17)), "all of the first window"
    assert found.read[16:].min() > 12
    assert found.read.max() == 16
    model, text = from_checkpoint(checkpoint), torch.from_numpy(TEXT.astype(np.int64))
    with torch.no_grad():
        for i in (0, 15, 16, 19, 20, 301, TEXT.size - 2):  # each from nothing but what it names
            place, read = found.places[i], found.read[i]
            logits = model(text[None, place - read : place])[0, -1]
            wanted = F.cross_entropy(logits, text[place]).item()
            assert found.nats[i] == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_a_carried_text_is_one_forward_pass_over_all_of_it(monkeypatch):
    checkpoint = models.checkpoint(SHAPE)
    found = losses.of(checkpoint, TEXT, "carried")
    text = torch.from_numpy(TEXT.astype(np.int64))
    with torch.no_grad():
        logits = from_checkpoint(checkpoint)(text[None, :-1])[0]
        wanted = F.cross_entropy(logits, text[1:], reduction="none").numpy()
    np.testing.assert_allclose(found.nats, wanted, rtol=1e-3, atol=1e-4)
    assert found.read.tolist() == found.places.tolist() == list(range(1, TEXT.size))
    monkeypatch.setattr(losses, "FED", 77)  # state goes on from one call to the next
    np.testing.assert_allclose(losses.of(checkpoint, TEXT, "carried").nats, found.nats, rtol=1e-5)


def test_a_cache_that_grows_is_not_carried_over_a_text():
    checkpoint = models.checkpoint(replace(SHAPE, mixers=("mcsd", "attention")))
    with pytest.raises(BadInput, match=r"attention keeps every token.*sliding"):
        losses.of(checkpoint, TEXT, "carried")


def test_a_protocol_nobody_knows_and_a_text_too_short_are_refused():
    checkpoint = models.checkpoint(SHAPE)
    with pytest.raises(UnknownName, match="known: windows, sliding, carried"):
        losses.plan(checkpoint, 500, "strided", 16)
    with pytest.raises(BadInput, match="32 tokens has no two windows of 16"):
        losses.plan(checkpoint, 32, "windows", 16)


def test_how_a_protocol_cuts_a_text_by_hand():
    checkpoint = models.checkpoint(SHAPE)
    assert losses.plan(checkpoint, 27, "windows", 8) == [
        Stretch(0, 8),
        Stretch(8, 16),
        Stretch(16, 24),
    ]
    assert losses.plan(checkpoint, 18, "sliding", 8) == [
        Stretch(0, 8),
        Stretch(2, 10, 6),
        Stretch(4, 12, 6),
        Stretch(6, 14, 6),
        Stretch(8, 16, 6),
        Stretch(9, 17, 7),
    ]
    assert losses.plan(checkpoint, 18, "carried", 8) == [Stretch(0, 17)]
    many = losses.plan(checkpoint, 1000, "windows", 8)
    assert [s.first for s in losses.spread(many, 3)] == [0, 488, 984]


def test_the_cost_of_a_target_by_hand():
    logits = np.log(np.array([[1, 3], [1, 1], [1e-3, 1]], np.float32))
    found = losses.nats_of(logits, np.array([1, 0, GIVEN]))
    np.testing.assert_allclose(found, [math.log(4 / 3), math.log(2), 0], rtol=1e-6)
    long = np.random.default_rng(0).standard_normal((150, 9)).astype(np.float32)
    wanted = np.random.default_rng(1).integers(0, 9, 150)
    reference = F.cross_entropy(
        torch.from_numpy(long).double(), torch.from_numpy(wanted), reduction="none"
    )
    np.testing.assert_allclose(losses.nats_of(long, wanted), reference.numpy(), rtol=1e-9)


@pytest.mark.parametrize(
    ("protocol", "context", "flagged"), [("windows", 0, False), ("sliding", 0, False),
                                         ("windows", 256, True), ("carried", 0, True)],
)  # fmt: skip
def test_a_whole_text_is_scored_by_each_protocol(protocol, context, flagged):
    shape = replace(SHAPE, vocabulary=65, context=64)
    made = models.checkpoint(shape)
    recipe = replace(made.recipe, corpus="characters")
    made = replace(made, recipe=recipe, provenance={"corpus_hash": "0"})
    found = quality.score(made, blocks=None, protocol=protocol, context=context)
    assert (quality.BEYOND in found.flags) == flagged
    assert found.protocol == protocol
    assert found.blocks == quality.BLOCKS
    if protocol == "windows":
        window = context or 64
        assert (found.context, found.scored) == (window, 111_539 // window * window)
    else:
        assert found.context == (64 if protocol == "sliding" else 111_539)
        assert found.scored == 111_539


def test_examples_have_no_protocol():
    made = models.checkpoint(replace(SHAPE, vocabulary=64, context=32))
    made = replace(made, recipe=replace(made.recipe, corpus="recall"))
    with pytest.raises(BadInput, match="recall's examples have windows of their own"):
        quality.score(replace(made, provenance={"corpus_hash": "0"}), protocol="carried")
