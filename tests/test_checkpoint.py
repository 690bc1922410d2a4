"""Checkpoints: what is saved comes back, and nothing else is believed."""

from __future__ import annotations

import errno
import json
import os
import pickle
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness import checkpoint as checkpoints
from harness import plugins
from harness.errors import BadCheckpoint, HarnessError
from harness.records import Recipe
from tests import models

STACK = models.shape(("attention", "mcsd"), "selective")


def written(tmp_path, change=None, arrays=None):
    """A file with a changed header, as a stranger or another version might write it."""
    made = models.checkpoint(STACK)
    header = {
        "version": checkpoints.VERSION, "recipe": asdict(made.recipe), "shape": asdict(made.shape),
        "formats": {}, "provenance": {},
    }  # fmt: skip
    if change:
        change(header)
    path = tmp_path / "strange.safetensors"
    save_file(arrays or dict(made.arrays), path, metadata={"edgewise": json.dumps(header)})
    return path


def refusal(path) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        checkpoints.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("form", sorted(plugins.formats()))
def test_what_is_saved_comes_back(tmp_path, form):
    made = replace(models.checkpoint(STACK, form), provenance={"seed": 3, "losses": [1.5, 1.25]})
    checkpoints.save(made, tmp_path / "new" / "c.safetensors")
    back = checkpoints.load(tmp_path / "new" / "c.safetensors")
    assert (back.recipe, back.shape) == (made.recipe, made.shape)
    assert (back.formats, back.provenance) == (made.formats, made.provenance)
    assert set(back.arrays) == set(made.arrays)
    for name, array in made.arrays.items():
        assert back.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(back.arrays[name], array)
    assert checkpoints.checkpoint_hash(back) == checkpoints.checkpoint_hash(made)


def test_the_hash_of_a_checkpoint_follows_every_weight():
    made = models.checkpoint(STACK)
    arrays = {name: array.copy() for name, array in made.arrays.items()}
    arrays["layers.1.mixer.o"][3, 5] += np.float32(1e-6)
    changed = replace(made, arrays=arrays)
    assert checkpoints.checkpoint_hash(changed) != checkpoints.checkpoint_hash(made)


# ---- files that cannot be used ------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_one_clear_line(tmp_path, share):
    path = tmp_path / "c.safetensors"
    checkpoints.save(models.checkpoint(STACK), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "truncated or malformed" in refusal(path)


def test_files_of_others_are_refused(tmp_path):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(np.random.default_rng(0).bytes(5000))
    assert "truncated or malformed" in refusal(garbage)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": np.ones(3, np.float32)}, foreign)
    assert "not a checkpoint of Edgewise" in refusal(foreign)
    assert "does not exist" in refusal(tmp_path / "absent")
    assert "malformed" in refusal(tmp_path)


class Trap:
    def __reduce__(self):
        return (os.mkdir, (os.environ["TRAP"],))


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    path = tmp_path / "c.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    refusal(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, bad):
    made = models.checkpoint(STACK)
    arrays = dict(made.arrays)
    arrays["layers.1.mixer.u"] = arrays["layers.1.mixer.u"].copy()
    arrays["layers.1.mixer.u"][0, :2] = bad
    checkpoints.save(replace(made, arrays=arrays), tmp_path / "c")
    assert "'layers.1.mixer.u' holds 2 values" in refusal(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update(version=99), "version 99, expected 1"),
        (lambda h: h.pop("shape"), "'shape'"),
        (lambda h: h["shape"].update(width="wide"), "Shape.width: "),
        (lambda h: h["shape"].update(kv_heads=3), "4 heads cannot share 3"),
        (lambda h: h["shape"].update(mixers=["mcsd"]), "2 layers need as many mixers"),
        (lambda h: h["shape"].update(heads=0, kv_heads=0), "heads must be at least 1"),
        (lambda h: h["shape"].update(width=-64), "width"),
        (lambda h: h["recipe"].pop("name"), "Recipe.name: "),
        (lambda h: h.update(formats=["int8"]), "dict"),
        (lambda h: h.update(provenance="mine"), "dict"),
    ],
)
def test_a_header_that_says_impossible_things_is_refused(tmp_path, change, words):
    assert words in refusal(written(tmp_path, change))


def test_a_header_that_is_no_record_is_refused(tmp_path):
    path = tmp_path / "c"
    save_file({"a": np.ones(1, np.float32)}, path, metadata={"edgewise": "[1, 2"})
    refusal(path)
    save_file({"a": np.ones(1, np.float32)}, path, metadata={"edgewise": "[1, 2]"})
    refusal(path)


# ---- a full disk --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["os.replace", "safetensors.numpy.save_file", "tempfile.mkstemp"])
def test_a_full_disk_is_one_clear_line_and_keeps_the_old_file(tmp_path, monkeypatch, where):
    path = tmp_path / "c.safetensors"
    checkpoints.save(models.checkpoint(STACK, seed=1), path)
    before = path.read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(where, full)
    with pytest.raises(HarnessError, match=r"^cannot save .*No space left.*nothing was changed$"):
        checkpoints.save(models.checkpoint(STACK, seed=2), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


# ---- recipes ------------------------------------------------------------------------------------


def test_a_new_field_with_a_default_renames_no_checkpoint():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Later(Recipe):
        dropout: float = 0.0

    old = Recipe(name="mcsd:tiny", shape=STACK, tokens=1000)
    new = Later(name="mcsd:tiny", shape=STACK, tokens=1000)
    assert checkpoints.recipe_hash(new) == checkpoints.recipe_hash(old)
    assert checkpoints.recipe_hash(replace(new, dropout=0.1)) != checkpoints.recipe_hash(old)


def test_recipes_that_differ_have_different_files():
    one = Recipe(name="mcsd:tiny", shape=STACK, tokens=1000)
    others = [
        replace(one, tokens=1001), replace(one, seed=1), replace(one, steps=("int8",)),
        replace(one, learning_rate=1e-3), replace(one, corpus="recall"), replace(one, active=0.5),
        replace(one, teacher="mcsd:micro"), replace(one, batch=13),
        replace(one, shape=replace(STACK, hidden=64)),
        replace(one, shape=replace(STACK, mixers=("mcsd", "attention"))),
        replace(one, steps=("prune50", "int8")), replace(one, steps=("int8", "prune50")),
    ]  # fmt: skip
    assert len({checkpoints.recipe_hash(r) for r in [one, *others]}) == len(others) + 1
    assert checkpoints.recipe_hash(replace(one)) == checkpoints.recipe_hash(one)


def test_a_users_own_checkpoint_comes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "shipped")
    recipe = Recipe(name="mcsd+selective:tiny@prune50+int8", shape=STACK, tokens=1000)
    assert checkpoints.find(recipe) is None
    shipped = tmp_path / "shipped" / checkpoints.file_name(recipe)
    checkpoints.save(models.checkpoint(STACK), shipped)
    assert checkpoints.find(recipe) == shipped
    checkpoints.save(models.checkpoint(STACK), checkpoints.path_of(recipe))
    assert checkpoints.find(recipe) == checkpoints.path_of(recipe)
