"""Rotary speeds and norm epsilons as public checkpoints set them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness import checkpoint as checkpoints
from harness.engines.numba import session
from harness.mixers.attention.spec import speeds
from harness.records import RopeScaling
from harness.training.model import from_checkpoint
from kernels import rope
from tests import models

LLAMA3 = RopeScaling(kind="llama3", factor=32.0, original_context=8192)


def shape(**changes):
    return replace(models.shape(("attention", "attention"), "dense"), **changes)


def pair_by_pair(shape):
    """The three cases of Llama 3.1's rule one pair at a time, by wavelengths."""
    found, s = [], shape.rope_scaling
    for i in range(shape.head_width // 2):
        speed = 1.0 / shape.rope_base ** (2 * i / shape.head_width)
        wavelength = 2 * math.pi / speed
        if wavelength > s.original_context / s.low_turns:
            speed /= s.factor
        elif wavelength >= s.original_context / s.high_turns:
            smooth = (s.original_context / wavelength - s.low_turns) / (s.high_turns - s.low_turns)
            speed = (1 - smooth) * speed / s.factor + smooth * speed
        found.append(speed)
    return found


@pytest.mark.parametrize("context", [32, 1000, 8192])
def test_llama3_scaling_is_its_three_cases(context):
    scaling = replace(LLAMA3, original_context=context)
    scaled = shape(head_width=64, rope_base=500000.0, rope_scaling=scaling)
    found = speeds(scaled)
    np.testing.assert_allclose(found, pair_by_pair(scaled), rtol=1e-12)
    plain = speeds(replace(scaled, rope_scaling=None))
    kept, slowed = found == plain, np.isclose(found, plain / 32, rtol=1e-12)
    assert kept.any()
    assert slowed.any()
    assert (~kept & ~slowed).any(), "one pair should lie between"


def test_linear_scaling_divides_every_position():
    scaled = shape(rope_scaling=RopeScaling(kind="linear", factor=4.0))
    np.testing.assert_allclose(speeds(scaled) * 4, speeds(shape()), rtol=1e-15)


def test_angles_are_exact_far_out():
    wanted = speeds(shape(head_width=64, rope_base=500000.0, rope_scaling=LLAMA3))
    table, depth = np.empty(64, np.float32), 131071
    rope.angles(depth, 1, 64, rope.split(wanted), 0, table, 0)
    cosines = [math.cos(depth * float(speed)) for speed in wanted]
    np.testing.assert_allclose(table[:32], cosines, atol=1e-7)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_base": 500.0},
        {"rope_scaling": RopeScaling(kind="linear", factor=2.0)},
        {"rope_scaling": replace(LLAMA3, original_context=32)},
        {"norm_epsilon": 0.05},
    ],
    ids=["base", "linear", "llama3", "epsilon"],
)
def test_engine_and_model_follow_the_shape(changes):
    import torch

    plain = models.checkpoint(shape(), "f32")
    changed = replace(plain, shape=shape(**changes))
    tokens = np.random.default_rng(0).integers(0, 101, 50)

    def logits(checkpoint):
        with session.open_session(checkpoint, room=len(tokens)) as s:
            return session.feed(s, tokens, every=True)

    with torch.no_grad():
        wanted = from_checkpoint(changed)(torch.from_numpy(tokens)[None])[0].numpy()
    found = logits(changed)
    scale = np.abs(wanted).max()
    assert np.abs(found - wanted).max() < 1e-4 * scale
    assert np.abs(found - logits(plain)).max() > 1e-2 * scale, "the change should matter"


def test_shipped_checkpoints_keep_their_names_and_hashes():
    """Names hold recipe hashes; the other hash is in rows published before these fields."""
    for path in checkpoints.SHIPPED.glob("*.safetensors"):
        assert checkpoints.file_name(checkpoints.load(path).recipe) == path.name
    (path,) = checkpoints.SHIPPED.glob("attention-nano-c3f9*.safetensors")
    assert checkpoints.checkpoint_hash(checkpoints.load(path)) == "0946b78093425034"


def test_a_set_epsilon_is_part_of_both_hashes():
    made = models.checkpoint(shape(), "f32")
    other = replace(made, shape=shape(norm_epsilon=1e-6))
    assert checkpoints.checkpoint_hash(made) != checkpoints.checkpoint_hash(other)
    recipe = replace(made.recipe, shape=other.shape)
    assert checkpoints.recipe_hash(made.recipe) != checkpoints.recipe_hash(recipe)


@pytest.mark.parametrize(
    "wrong",
    [{"factor": 0.5}, {"factor": float("nan")}, {"low_turns": 4.0}, {"original_context": 0}],
)
def test_impossible_scalings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"a scaling needs|turns must rise"):
        replace(LLAMA3, **wrong)


def test_a_scaling_survives_saving(tmp_path):
    made = models.checkpoint(shape(rope_scaling=LLAMA3, norm_epsilon=1e-6), "f32")
    checkpoints.save(made, tmp_path / "a.safetensors")
    back = checkpoints.load(tmp_path / "a.safetensors")
    assert back.shape == made.shape
    assert checkpoints.checkpoint_hash(back) == checkpoints.checkpoint_hash(made)
