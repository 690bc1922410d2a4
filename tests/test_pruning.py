"""Pruning that refits and tunes: what goes is what others can take over, and zeros stay zeros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness import candidates, plugins, weights
from harness.errors import BadInput
from harness.records import Recipe
from harness.transforms import _rounding, slim50, wanda50
from tests import models


def quietly(stage, done, total):
    pass


def small(mixer="mcsd", ffn="dense"):
    made = models.checkpoint(models.shape((mixer, mixer), ffn, vocabulary=65, hidden=128))
    return replace(made, recipe=replace(made.recipe, corpus="characters", batch=4))


def neurons(count=40, inputs=3000, seed=0):
    """Output weights, and activations of which some are nearly sums of others."""
    rng = np.random.default_rng(seed)
    free = rng.standard_normal((inputs, count // 2))
    tied = free @ rng.standard_normal((count // 2, count - count // 2)) / count**0.5
    x = np.concatenate([free, tied + 0.05 * rng.standard_normal(tied.shape)], 1)
    return rng.standard_normal((8, count)), x


def test_what_stays_of_a_layer_is_the_least_squares_fit_of_all_of_it():
    output, x = neurons()
    moments = x.T @ x / len(x)
    kept, refitted = slim50.eliminated(output, moments, 20)
    damped = _rounding.damp(moments)
    wanted = output @ damped[:, kept] @ np.linalg.inv(damped[np.ix_(kept, kept)])
    np.testing.assert_allclose(refitted, wanted, rtol=1e-6, atol=1e-9)
    assert len(set(kept)) == 20
    assert (np.diff(kept) > 0).all()


def test_neurons_that_others_can_take_over_go_first():
    output, x = neurons()
    kept, refitted = slim50.eliminated(output, x.T @ x / len(x), 20)
    error = np.square(x @ output.T - x[:, kept] @ refitted.T).mean()
    by_size = np.sort(np.argsort(-np.square(x).mean(0) * np.square(output).sum(0))[:20])
    other = np.square(x @ output.T - x[:, by_size] @ output[:, by_size].T).mean()
    assert error < 0.05 * np.square(x @ output.T).mean()
    assert error < 0.1 * other


def test_slim50_halves_the_ffn_and_refuses_one_that_is_not_dense():
    made = small()
    found = slim50.slimmed(made, quietly)
    assert found.shape == replace(made.shape, hidden=64)
    rows = {row.tobytes() for row in made.arrays["layers.1.ffn.up"]}
    assert all(row.tobytes() in rows for row in found.arrays["layers.1.ffn.up"])
    assert found.arrays["layers.0.ffn.down"].shape == (64, 64)
    with pytest.raises(BadInput, match="slim50 removes neurons of a dense ffn"):
        slim50.slimmed(small(ffn="selective"), quietly)


@pytest.mark.parametrize("together", [0, 4])
def test_half_of_each_row_is_kept_or_two_of_any_four(together):
    scores = np.random.default_rng(0).random((5, 24))
    kept = wanda50.halved(scores, together)
    width = together or 24
    groups, chosen = scores.reshape(5, -1, width), kept.reshape(5, -1, width)
    assert (chosen.sum(-1) == width // 2).all()
    assert (np.where(chosen, groups, 2).min(-1) > np.where(chosen, -1, groups).max(-1)).all()


def test_weights_that_meet_loud_inputs_are_kept_over_larger_ones():
    made = small("attention")
    loud = dict(made.arrays)
    gain = np.ones(64, np.float32)
    gain[::2] = 30.0  # what enters at even places is loud
    loud["layers.0.ffn_norm"] = gain
    found = {
        aware: wanda50.masked(0, aware, replace(made, arrays=loud), quietly).arrays
        for aware in (True, False)
    }
    up = {aware: arrays["layers.0.ffn.up"] != 0 for aware, arrays in found.items()}
    assert up[True][:, ::2].mean() > 0.9
    assert up[False][:, ::2].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("step", ["wanda50", "magnitude50", "two4"])
def test_zeros_stay_zeros_through_tuning_and_storing(step):
    made, transform = small(), plugins.transforms()[step]
    recipe = Recipe(name=f"test:tiny@{step}", shape=made.shape, tuning_tokens=5 * 4 * 32)
    together, aware = {"wanda50": (0, True), "magnitude50": (0, False), "two4": (4, True)}[step]
    before = wanda50.masked(together, aware, made, quietly).arrays
    found = transform.apply(made, recipe, quietly)
    assert found.provenance["finetuning_tokens"] == 5 * 4 * 32
    for name, array in weights.unpacked(found).items():
        if "." not in name or not candidates.tensors(made.shape)[name].packed:
            assert name not in found.formats
            continue
        assert found.formats[name] == "sparse50int8"
        assert (array[before[name] == 0] == 0).all()
        assert (before[name] != 0).mean() == pytest.approx(0.5)
        assert not np.array_equal(array, before[name])
