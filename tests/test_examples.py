"""Accuracy over examples: the engine's answers against PyTorch's, and against a table by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness import examples, plugins
from harness.errors import BadInput
from harness.study.protocols import PROTOCOLS
from harness.training.model import from_checkpoint
from tests import models


def made(corpus, mixers=("attention", "mcsd")):
    vocabulary = plugins.corpora()[corpus].vocabulary
    checkpoint = models.checkpoint(models.shape(mixers, vocabulary=vocabulary))
    recipe = replace(checkpoint.recipe, corpus=corpus)
    return replace(checkpoint, recipe=recipe, provenance={"corpus_hash": "0"})


@pytest.mark.parametrize("corpus", ["recall-far", "copy"])
def test_every_step_of_every_axis_is_what_pytorch_answers(corpus):
    checkpoint, spec = made(corpus), plugins.corpora()[corpus]
    model, found, differing = from_checkpoint(checkpoint), examples.series(checkpoint), 0
    for axis, steps in spec.series().items():
        assert list(found[axis]) == list(steps)
        for at, step in steps.items():
            asked = list(step.scored)
            with torch.no_grad():
                best = model(torch.from_numpy(step.tokens))[:, asked].argmax(-1).numpy()
            shares = (best == step.tokens[:, [p + 1 for p in asked]]).mean(1)
            assert found[axis][at].value == pytest.approx(shares.mean(), abs=0.002)
            wanted = shares.std(ddof=1) / len(shares) ** 0.5
            assert found[axis][at].standard_error == pytest.approx(wanted, abs=0.002)
            differing += shares.mean() > 0
    assert differing, "some answers are right, by chance"


def test_a_stack_that_repeats_its_input_answers_by_hand():
    """Mixers and ffns that write nothing, and a head that is the embedding: x is followed by x."""
    checkpoint = made("copy", ("mcsd",))
    silent = {
        name: np.zeros_like(array) if name.endswith((".o", ".down")) else array
        for name, array in checkpoint.arrays.items()
    }
    rows = np.eye(64, dtype=np.float32)
    checkpoint = replace(checkpoint, arrays={**silent, "embedding": rows, "head": rows,
                                             "norm": np.ones(64, np.float32)})  # fmt: skip
    tokens = np.array([[3, 3, 4, 4], [5, 6, 7, 7], [1, 2, 3, 4]])
    assert examples.right(checkpoint, tokens, (0, 2)).tolist() == [1.0, 0.5, 0.0]


def test_a_study_scores_by_difficulty():
    checkpoint = made("recall-far", ("mcsd",))
    found, shares = PROTOCOLS["difficulty"](checkpoint), examples.series(checkpoint)
    assert found.quality.blocks == 2048
    assert list(found.curves) == ["pairs", "distance"]
    at, value, error = found.curves["distance"][2]
    assert (at, value, error) == (32, shares["distance"][32].value,
                                  shares["distance"][32].standard_error)  # fmt: skip


def test_running_text_is_not_told_by_difficulty():
    with pytest.raises(BadInput, match="pydocs is not told by difficulty"):
        examples.series(replace(made("copy"), recipe=replace(made("copy").recipe, corpus="pydocs")))
