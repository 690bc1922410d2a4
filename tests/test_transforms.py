"""Compressions: what they remove is gone, and what they keep is worth more than chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness import checkpoint as checkpoints
from harness import plugins
from harness.errors import BadInput
from harness.make import make
from harness.records import Recipe, Shape
from harness.training.evaluate import held_out_loss
from harness.training.model import from_checkpoint
from harness.training.train import train
from harness.transforms import _tune, heads50, prune50
from tests import models

CONTEXT, BATCH, STEPS = 32, 8, 200
SHAPE = Shape(
    vocabulary=256, width=64, layers=2, mixers=("attention", "attention"), ffn="dense", hidden=128,
    heads=8, kv_heads=4, head_width=8, channels=4, context=CONTEXT,
)  # fmt: skip
RECIPE = Recipe(
    name="attention:tiny", shape=SHAPE, tokens=STEPS * CONTEXT * BATCH, batch=BATCH, seed=1
)


@pytest.fixture(scope="module")
def trained(cache_folder):
    """A small model that has learned something, found by `make` again."""
    made = train(RECIPE)
    checkpoints.save(made, checkpoints.path_of(RECIPE))
    return made


@pytest.fixture
def untuned(monkeypatch):
    """Pruning alone: what was chosen is judged before fine-tuning hides it."""
    for transform in (prune50, heads50):
        monkeypatch.setattr(transform, "tuned", lambda checkpoint, recipe, progress: checkpoint)


@pytest.fixture
def briefly(monkeypatch):
    monkeypatch.setattr(_tune, "FINETUNING_TOKENS", 20 * CONTEXT * BATCH)


def quietly(stage, done, total):
    pass


def stepped(*steps):
    return replace(RECIPE, name="attention:tiny@" + "+".join(steps), steps=steps)


def loss(checkpoint):
    text = plugins.corpora()["pydocs"].load().validation[:20_000]
    return held_out_loss(from_checkpoint(checkpoint), text, CONTEXT).nats


def keep_neurons(checkpoint, seed):
    """Half of the neurons of each layer by lot."""
    rng, arrays = np.random.default_rng(seed), dict(checkpoint.arrays)
    for layer in range(SHAPE.layers):
        at, kept = f"layers.{layer}.ffn", np.sort(rng.choice(128, 64, replace=False))
        for name in ("gate", "up"):
            arrays[f"{at}.{name}"] = arrays[f"{at}.{name}"][kept]
        arrays[f"{at}.down"] = arrays[f"{at}.down"][:, kept]
    return replace(checkpoint, shape=replace(SHAPE, hidden=64), arrays=arrays)


def keep_heads(checkpoint, kept):
    """The key-value heads `kept` of every layer with their two query heads each."""
    arrays = dict(checkpoint.arrays)
    keys = np.concatenate([np.arange(8 * g, 8 * g + 8) for g in kept])
    queries = np.concatenate([np.arange(16 * g, 16 * g + 16) for g in kept])
    for layer in range(SHAPE.layers):
        at = f"layers.{layer}.mixer"
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            arrays[f"{at}.{name}"] = arrays[f"{at}.{name}"][rows]
        arrays[f"{at}.o"] = arrays[f"{at}.o"][:, queries]
    return replace(checkpoint, shape=replace(SHAPE, heads=4, kv_heads=2), arrays=arrays)


def test_prune50_removes_half_of_the_neurons_and_chooses_better_than_chance(trained, untuned):
    pruned = prune50.apply(trained, stepped("prune50"), quietly)
    assert pruned.shape == replace(SHAPE, hidden=64)
    assert pruned.arrays["layers.1.ffn.gate"].shape == (64, 64)
    assert pruned.arrays["layers.1.ffn.down"].shape == (64, 64)
    rows = {row.tobytes() for row in trained.arrays["layers.0.ffn.up"]}
    assert all(row.tobytes() in rows for row in pruned.arrays["layers.0.ffn.up"])
    by_lot = [loss(keep_neurons(trained, seed)) for seed in range(4)]
    assert loss(trained) < loss(pruned) < min(by_lot)


def test_heads50_removes_half_of_the_heads_and_chooses_better_than_most(trained, untuned):
    pruned = heads50.apply(trained, stepped("heads50"), quietly)
    assert pruned.shape == replace(SHAPE, heads=4, kv_heads=2)
    assert pruned.arrays["layers.0.mixer.q"].shape == (32, 64)
    assert pruned.arrays["layers.0.mixer.k"].shape == (16, 64)
    assert pruned.arrays["layers.0.mixer.o"].shape == (64, 32)
    pairs = [(a, b) for a in range(4) for b in range(a)]
    others = [loss(keep_heads(trained, sorted(pair))) for pair in pairs]
    assert loss(trained) < loss(pruned) < np.median(others)


def test_fine_tuning_wins_back_some_of_what_pruning_lost(trained, briefly):
    made = prune50.apply(trained, stepped("prune50"), quietly)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune50, "tuned", lambda checkpoint, recipe, progress: checkpoint)
        raw = prune50.apply(trained, stepped("prune50"), quietly)
    assert loss(made) < loss(raw)


@pytest.mark.parametrize("step", ["prune50", "heads50"])
def test_a_transform_stacks_with_a_format_and_is_found_again(trained, briefly, step):
    stages = set()
    made = make(stepped(step, "int8"), lambda stage, done, total: stages.add(stage.split(",")[0]))
    assert made.recipe == stepped(step, "int8")
    assert set(made.formats.values()) == {"int8"}
    assert made.arrays["layers.0.ffn.up"].dtype == np.int8
    assert made.shape != SHAPE
    assert "fine-tune" in stages
    for recipe in (stepped(step), stepped(step, "int8")):
        assert checkpoints.find(recipe) == checkpoints.path_of(recipe)
    again = make(stepped(step, "int8"))
    assert checkpoints.checkpoint_hash(again) == checkpoints.checkpoint_hash(made)
    smaller = checkpoints.load(checkpoints.path_of(stepped(step)))
    assert loss(made) == pytest.approx(loss(smaller), rel=0.02)
    assert made.provenance["corpus_hash"] == plugins.corpora()["pydocs"].load().hash


def test_transforms_refuse_what_they_cannot_shrink():
    selective = models.checkpoint(models.shape(("mcsd", "mcsd"), "selective"))
    with pytest.raises(BadInput, match="prune50 removes neurons of a dense ffn"):
        prune50.apply(selective, stepped("prune50"), quietly)
    with pytest.raises(BadInput, match="heads50 removes attention heads"):
        heads50.apply(selective, stepped("heads50"), quietly)
    one = models.checkpoint(models.shape(kv_heads=1))
    with pytest.raises(BadInput, match="one key-value head"):
        heads50.apply(one, stepped("heads50"), quietly)


def test_a_student_needs_a_teacher_that_is_trained(trained):
    distil = plugins.transforms()["distil"].apply
    with pytest.raises(BadInput, match="names no teacher"):
        distil(trained, stepped("distil"), quietly)
    taught = replace(stepped("distil"), teacher="mcsd:micro", seed=12345)
    with pytest.raises(BadInput, match="`edgewise train mcsd:micro` first"):
        distil(trained, taught, quietly)
