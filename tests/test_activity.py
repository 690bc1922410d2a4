"""What the engine ran for each token: the same groups as PyTorch, counted, beside the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness import activity, arena, losses, plugins
from harness.engines.numba import session
from harness.errors import BadInput
from harness.ffns import _gated
from harness.training.model import from_checkpoint
from kernels import choice
from tests import models

# A score this far from zero, in standard deviations of all scores, falls on the same side in the
# engine and in PyTorch: they add float32 in another order, and nothing else differs.
MARGIN = 1e-4
GROUPED = sorted(set(plugins.ffns()) - {"dense"})


def made(ffn, **changes):
    """Selectors without a bias, so that scores lie around zero."""
    checkpoint = models.checkpoint(models.shape(("mcsd", "mcsd"), ffn, hidden=256, **changes))
    arrays = {
        name: np.zeros_like(array) if name.endswith("selector_bias") else array
        for name, array in checkpoint.arrays.items()
    }
    return replace(checkpoint, arrays=arrays)


def text(n, seed=0):
    return np.random.default_rng(seed).integers(0, 101, n)


def inputs_of(checkpoint, tokens):
    """What PyTorch hands to each layer's ffn, (n,width), and those layers."""
    model, seen = from_checkpoint(checkpoint), []
    for ffn in model.ffns():
        ffn.register_forward_pre_hook(lambda module, given: seen.append(given[0][0].clone()))
    with torch.no_grad():
        model(torch.from_numpy(tokens)[None])
    return list(zip(seen, model.ffns(), strict=True))


def scores_of(checkpoint, tokens):
    """Scores of a selective ffn by PyTorch, (layers,n,g)."""
    with torch.no_grad():
        return np.stack([ffn.score(x).numpy() for x, ffn in inputs_of(checkpoint, tokens)])


@pytest.mark.parametrize("seed", range(4))
def test_the_same_scores_choose_the_same_groups_in_training_and_in_the_engine(seed):
    rng = np.random.default_rng(seed)
    scores = (rng.standard_normal((7, 11)) * 10.0 ** rng.integers(-44, 3, (7, 11))).astype("f4")
    scores[rng.random((7, 11)) < 0.2] = rng.choice(np.float32([0.0, -0.0, 1e-45, -1e-45]))
    n, g = scores.shape
    table = np.zeros(choice.table_size(n, g), np.float32)
    running = choice.choose(scores.reshape(-1), 0, n, g, table, 0)
    counts = np.zeros(n, np.float32)
    choice.count(table, 0, g, running, counts, 0)
    mask = _gated.hard(torch.from_numpy(scores)).numpy() > 0.5
    assert sorted(table[:running].astype(int)) == np.flatnonzero(mask.any(0)).tolist()
    np.testing.assert_array_equal(counts, mask.sum(1))


def test_outside_a_margin_training_and_engine_choose_the_same_groups_end_to_end():
    checkpoint, tokens = made("selective"), text(90)
    scores = scores_of(checkpoint, tokens)
    close = (np.abs(scores) < MARGIN * scores.std()).any((0, 2))
    assert close.mean() < 0.1, "the margin must leave most tokens to be compared"
    assert 0.2 < (scores > 0).mean() < 0.8
    with session.open_session(checkpoint, room=tokens.size) as s:
        session.feed(s, tokens, every=True)
        found = session.ran(s, tokens.size)
        at, g = s.arenas.dims[arena.OWN], scores.shape[2]
        last = s.arenas.scratch[at : at + tokens.size * g].reshape(-1, g).copy()
    np.testing.assert_allclose(found[~close], (scores > 0).mean((0, 2))[~close], rtol=1e-6)
    np.testing.assert_array_equal((last > 0)[~close], (scores[-1] > 0)[~close])


@pytest.mark.parametrize("ffn", GROUPED)
def test_the_share_that_ran_is_that_of_the_groups_the_formula_needs(ffn):
    checkpoint, tokens = made(ffn), text(90)
    shape = checkpoint.shape
    shares = []
    for x, layer in inputs_of(checkpoint, tokens):
        with torch.no_grad():
            gate, _ = layer.gated(x)
            if ffn == "selective":
                runs = layer.score(x) > 0
            elif ffn == "relu":
                runs = layer.largest(gate) > 0
            elif ffn == "threshold":
                runs = layer.largest(torch.nn.functional.silu(gate).abs()) > layer.threshold
            else:
                runs = torch.arange(shape.hidden // shape.group).expand(90, -1) < shape.chosen
        shares.append(runs.float().mean(-1).numpy())
    found = activity.of(checkpoint, text(181), window=90, most=1)
    np.testing.assert_allclose(found.share, np.mean(shares, 0), atol=1e-6)


@pytest.mark.parametrize("chunked", [False, True])
def test_losses_are_those_of_windows_whatever_one_call_can_hold(chunked, monkeypatch):
    checkpoint = made("selective")
    if chunked:
        monkeypatch.setattr("harness.engines.numba.arenas.LOGITS_BYTES", 4 * 101 * 20)
    found = activity.of(checkpoint, text(200), window=64)
    cost = losses.of(checkpoint, text(200), window=64)
    np.testing.assert_allclose(found.nats, cost.nats, rtol=1e-4)
    np.testing.assert_array_equal(found.places + 1, cost.places)
    assert len(found.share) == 192
    assert np.isnan(found.own).nonzero()[0].tolist() == [0, 64, 128]
    later = np.delete(np.arange(192), [0, 64, 128])
    np.testing.assert_array_equal(found.own[later], found.nats[later - 1])
    assert found.share.std() > 0


def test_a_dense_ffn_has_no_activity_to_tell():
    with pytest.raises(BadInput, match="is dense"):
        activity.of(made("dense"), text(200), window=64)


def test_correlation_is_pearsons():
    share, nats = np.random.default_rng(0).random((2, 50))
    own = np.concatenate([[np.nan], nats[:-1]])
    found = activity.Activity(share=share, nats=nats, own=own, places=np.arange(50))
    wanted = ((share - share.mean()) * (nats - nats.mean())).mean() / share.std() / nats.std()
    assert activity.correlation(found) == pytest.approx(wanted)
    pairs = np.stack([share[1:], nats[:-1]])
    assert activity.surprise(found) == pytest.approx(np.corrcoef(pairs)[0, 1])
    assert np.isnan(activity.correlation(replace(found, share=np.full(50, 0.25))))
