"""Short names, and the sizes they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from harness import candidates, plugins, sizes
from harness.errors import BadInput, UnknownName
from harness.records import Shape

SIZES = sizes.names()
PAIRS = [
    pytest.param(mixer, ffn, id=f"{mixer}-{ffn}")
    for mixer in plugins.mixers()
    for ffn in plugins.ffns()
]


def test_a_name_is_read_part_by_part():
    recipe = candidates.parse("mcsd+selective:nano@int8", seed=4)
    assert recipe.name == "mcsd+selective:nano@int8"
    assert set(recipe.shape.mixers) == {"mcsd"}
    assert (recipe.shape.ffn, recipe.steps, recipe.seed) == ("selective", ("int8",), 4)
    assert 0 < recipe.active < 1
    plain = candidates.parse("attention:micro")
    assert (plain.shape.ffn, plain.steps, plain.active, plain.teacher) == ("dense", (), 1.0, None)
    assert candidates.parse("attention:micro", tokens=7).tokens == 7


def test_the_base_of_a_recipe_is_the_candidate_before_anything_was_done_to_it():
    compressed = candidates.parse("attention:nano@prune50+int8", seed=2)
    assert candidates.base(compressed) == candidates.parse("attention:nano", seed=2)
    assert candidates.base(compressed) == candidates.base(candidates.base(compressed))


def test_a_student_names_its_teacher():
    assert candidates.parse("mcsd:nano@distil+int8").teacher == "mcsd:micro"
    with pytest.raises(BadInput, match="distil works for nano"):
        candidates.parse("mcsd:micro@distil")


@pytest.mark.parametrize("size", ["110m", "500m"])
def test_sizes_for_speed_have_no_training_budget(size):
    assert candidates.parse(f"mcsd:{size}@int4", tokens=1000).tokens == 0


@pytest.mark.parametrize(
    "name",
    [
        "", "nano", "mcsd", "mcsd:", ":nano", "mcsd:nano@", "mcsd:nano@int8+", "mcsd:nano@+int8",
        "MCSD:nano", "mcsd:nano@int8@int4", "mcsd nano", "mcsd:nano ", "mcsd:na/no",
        "../mcsd:nano", "mcsd:nano\n", "mcsd+:nano",
    ],
)  # fmt: skip
def test_a_malformed_name_is_answered_with_the_form_and_an_example(name):
    with pytest.raises(BadInput, match=r"MIXER\[\+FFN\]:SIZE.*e\.g\. attention:nano"):
        candidates.parse(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mamba:nano", r"unknown mixer 'mamba'; known: attention, attention-alibi, mcsd"),
        ("mcsd+nothing:nano", r"unknown ffn 'nothing'; known: dense, hash, moe"),
        ("mcsd:giant", r"unknown size 'giant'; known: .*micro, nano"),
        ("mcsd:nano@int3", r"unknown step 'int3'; known: .*int8"),
        ("attention:nano@int8+prune50", "steps come in the order of transforms"),
        ("attention:nano@int8+int4", "steps come in the order of transforms"),
        ("attention:nano@prune50+prune50", r"repeats a step"),
    ],
)
def test_a_name_with_a_wrong_part_is_answered_with_what_is_known(name, words):
    with pytest.raises((UnknownName, BadInput), match=words) as caught:
        candidates.parse(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mixer", "ffn"), PAIRS)
def test_candidates_of_a_size_have_equal_parameters_within_two_percent(size, mixer, ffn):
    shape = candidates.parse(f"{mixer}+{ffn}:{size}").shape
    raw = sizes.read(size)
    allowed = 0.02
    if mixer not in raw["hidden"]:  # its width is worked out, and rounded by up to 16 neurons
        allowed += 16 * 3 * shape.width * shape.layers / raw["parameters"]
    assert candidates.parameters(shape) == pytest.approx(raw["parameters"], rel=allowed)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mixer", "ffn"), PAIRS)
def test_widths_are_multiples_of_32(size, mixer, ffn):
    shape = candidates.parse(f"{mixer}+{ffn}:{size}").shape
    assert shape.width % 32 == shape.hidden % 32 == shape.hidden % shape.group == 0
    assert shape.heads * shape.head_width % 32 == 0
    assert shape.head_width % 2 == 0


def test_large_models_switch_large_groups_and_recipes_without_choice_keep_their_names():
    groups = {
        name: candidates.parse(name).shape.group
        for name in ("mcsd+selective:nano", "mcsd+selective:500m", "mcsd-paper+selective:110m",
                     "mcsd:500m")
    }  # fmt: skip
    assert list(groups.values()) == [32, 128, 96, 32]


def test_parameters_are_those_that_pytorch_counts():
    from harness.training.model import Model

    shape = candidates.parse("mcsd+selective:nano").shape
    assert candidates.parameters(shape) == sum(p.numel() for p in Model(shape).parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"layers": 3}, "3 layers need as many mixers"),
        ({"kv_heads": 3}, "4 heads cannot share 3"),
        ({"channels": 7}, "width 128 does not split into 7"),
    ],
)
def test_impossible_shapes_are_refused(change, words):
    shape = candidates.parse("attention:nano").shape
    values = {name: getattr(shape, name) for name in shape.__dataclass_fields__}
    with pytest.raises(ValueError, match=words):
        Shape(**{**values, **change})


def test_tensors_are_listed_once_with_whole_shapes():
    found = candidates.tensors(candidates.parse("mcsd-paper+selective:nano").shape)
    assert len(found) == len(set(found))
    assert all(np.prod(t.shape) > 0 and len(t.shape) == 2 for t in found.values() if t.packed)
    for tensor in found.values():
        assert tensor.shape[tensor.axis] % tensor.parts == 0


def test_a_budget_of_tuning_counts_only_where_a_step_tunes():
    changes = {"tuning_tokens": 1000}
    slim = candidates.parse("mcsd:nano@slim50+int8", changes=changes)
    assert slim.tuning_tokens == 1000
    assert candidates.base(slim) == candidates.parse("mcsd:nano")
    for name in ("mcsd:nano", "mcsd:nano@gptq4+int8"):
        assert candidates.parse(name, changes=changes) == candidates.parse(name)
