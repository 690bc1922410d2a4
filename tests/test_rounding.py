"""Rounding that looks at data: it beats rounding that does not, and its choices stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness import candidates, plugins, steps, weights, workload
from harness import checkpoint as checkpoints
from harness.make import make, pack
from harness.records import Recipe
from harness.training.finetune import finetune
from harness.training.model import from_checkpoint
from harness.training.rounded import Round, Rounded, stored
from harness.transforms import _calibrate, _rounding, mixed
from harness.verify import agree
from tests import models

GRIDS = [pytest.param(f, id=n) for n, f in plugins.formats().items() if f.grid is not None]
MIXERS = ("attention", "mcsd")


def drawn(rows=24, columns=80, inputs=2000, seed=0):
    """A matrix, and inputs whose columns are of very different size and depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((columns, columns)) * np.exp(rng.standard_normal(columns))
    return (
        rng.standard_normal((rows, columns)).astype(np.float32),
        rng.standard_normal((inputs, columns)) @ mixing / columns**0.5,
    )


def output_error(weights, other, x):
    """From the outputs themselves, in float64."""
    return np.square(x @ (weights.astype(np.float64) - other).T).mean()


def quietly(stage, done, total):
    pass


def small(mixer, **changes):
    made = models.checkpoint(models.shape((mixer, mixer), vocabulary=65, **changes))
    return replace(made, recipe=replace(made.recipe, corpus="characters", batch=4))


# ---- one matrix ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", GRIDS)
def test_compensated_rounding_beats_the_nearest_level_on_outputs(form):
    matrix, x = drawn()
    plain = form.unpack(form.pack(matrix), matrix.shape)
    made = form.unpack(_rounding.compensated(matrix, x.T @ x, form.grid), matrix.shape)
    assert output_error(matrix, made, x) < 0.6 * output_error(matrix, plain, x)


@pytest.mark.parametrize("form", GRIDS)
def test_a_scale_that_is_searched_for_beats_one_that_holds_the_largest_value(form):
    matrix = drawn()[0]
    made = form.unpack(_rounding.nearest(matrix, form.grid), matrix.shape)
    plain = form.unpack(form.pack(matrix), matrix.shape)
    # a search in steps comes near to the best scale, which ternary's own packing finds exactly
    assert np.square(matrix - made).sum() < 1.02 * np.square(matrix - plain).sum()
    if form.name == "int4":
        assert np.square(matrix - made).sum() < 0.95 * np.square(matrix - plain).sum()


@pytest.mark.parametrize("form", GRIDS)
def test_of_inputs_that_do_not_depend_on_each_other_nothing_is_made_up_for(form):
    matrix = drawn()[0]
    alike = _rounding.compensated(matrix, np.eye(matrix.shape[1]), form.grid)
    for key, array in _rounding.nearest(matrix, form.grid).items():
        np.testing.assert_array_equal(alike[key], array)


@pytest.mark.parametrize("form", GRIDS)
def test_columns_that_nothing_enters_and_rows_of_zeros_do_no_harm(form):
    matrix, x = drawn(columns=33)
    matrix[3], x[:, 5] = 0, 0
    made = form.unpack(_rounding.compensated(matrix, x.T @ x, form.grid), matrix.shape)
    assert np.isfinite(made).all()
    assert (made[3] == 0).all()


def test_a_matched_matrix_takes_back_what_changed_before_it():
    matrix, x = drawn(seed=1)
    seen = x @ (np.eye(80) + 0.1 * np.random.default_rng(2).standard_normal((80, 80)))
    made = _rounding.matched(matrix, seen.T @ seen, x.T @ seen)
    assert np.square(x @ matrix.T - seen @ made.T).sum() < 0.1 * output_error(
        matrix, np.zeros_like(matrix), x
    ) * len(x)


# ---- a whole model ------------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", MIXERS)
def test_what_is_seen_to_enter_a_matrix_is_what_enters_it(mixer):
    """`down` is entered by silu(gate x) * up x of what enters the other two."""
    made, seen = small(mixer), {}

    def watch(matrix):
        seen[matrix.name] = matrix
        return matrix.weights

    _calibrate.replace_each(made, watch, quietly)
    packed = [n for n, t in candidates.tensors(made.shape).items() if t.packed and "." in n]
    assert sorted(seen) == sorted(packed)
    for name, matrix in seen.items():
        np.testing.assert_array_equal(matrix.weights, made.arrays[name].astype(np.float64))
        np.testing.assert_allclose(matrix.moments, matrix.cross, rtol=1e-4, atol=1e-6)
    model, entered = from_checkpoint(made), []
    model.blocks[1].ffn.register_forward_pre_hook(lambda m, given: entered.append(given[0]))
    with torch.no_grad():
        model(_calibrate.text(made))
    x = entered[0].flatten(0, 1).double().numpy()
    gate, up = (x @ made.arrays[f"layers.1.ffn.{n}"].T for n in ("gate", "up"))
    hidden = gate / (1 + np.exp(-gate)) * up
    for name, wanted in (("gate", x), ("up", x), ("down", hidden)):
        found = seen[f"layers.1.ffn.{name}"].moments
        np.testing.assert_allclose(found, wanted.T @ wanted / len(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mixer", MIXERS)
def test_levels_chosen_by_compensation_survive_packing_the_rest_and_a_file(mixer, tmp_path):
    made = small(mixer)
    apply = plugins.transforms()["gptq4"].apply
    chosen = apply(made, replace(made.recipe, steps=("gptq4",)), quietly)
    whole = pack(chosen, "int8")
    assert set(whole.formats.values()) == {"int4", "int8"}
    assert whole.formats["embedding"] == whole.formats["head"] == "int8"
    checkpoints.save(whole, tmp_path / "a.safetensors")
    again = checkpoints.load(tmp_path / "a.safetensors")
    for name, array in chosen.arrays.items():
        if name not in ("embedding", "head"):
            np.testing.assert_array_equal(again.arrays[name], array)
    text = _calibrate.text(made)
    exact, near, plain = (
        from_checkpoint(c)(text).detach().numpy()
        for c in (made, chosen, plugins.transforms()["rtn4"].apply(made, made.recipe, quietly))
    )
    assert np.square(near - exact).mean() < 0.7 * np.square(plain - exact).mean()


# ---- training through rounding ------------------------------------------------------------------


def test_the_gradient_passes_rounding_as_if_it_were_not_there_but_beyond_the_last_level():
    values = torch.tensor([[[0.4, -0.9, 1.2, -2.6, 0.1]]], requires_grad=True)
    scale = torch.tensor([[1.0]], requires_grad=True)
    rounded = Round.apply(values, scale, -1, 1)
    assert rounded.tolist() == [[[0.0, -1.0, 1.0, -1.0, 0.0]]]
    gradient = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]])
    rounded.backward(gradient)
    assert values.grad.tolist() == [[[1.0, 2.0, 3.0, 0.0, 5.0]]]
    # d(level * scale)/d(scale) = level - ratio inside, level beyond; over root of the group's size
    wanted = 1 * (0 - 0.4) + 2 * (-1 + 0.9) + 3 * (1 - 1.2) + 4 * -1 + 5 * (0 - 0.1)
    assert scale.grad.item() == pytest.approx(wanted / 5**0.5, rel=1e-5)


def test_a_scale_of_zero_is_kept_off_it_and_others_are_as_float16_has_them():
    found = stored(torch.tensor([0.0, -0.1, 1 / 3]))
    assert found[0] > 0
    np.testing.assert_array_equal(found[1:], np.float32(np.float16([-0.1, 1 / 3])))


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("form", GRIDS)
def test_what_is_stored_multiplies_as_it_did_in_training(form, mixer):
    made = small(mixer, hidden=80)
    rounded = Rounded(from_checkpoint(made), form, form.grid)
    with torch.no_grad():
        for stretch in rounded.stretches:
            stretch.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
        text = _calibrate.text(made)[:2]
        trained = rounded(text)
    arrays, formats = rounded.packed()
    stored_so = replace(made, arrays=arrays, formats=formats)
    with torch.no_grad():
        again = from_checkpoint(stored_so)(text)
    # a level that fell the other way would be off by hundreds of times as much
    np.testing.assert_allclose(again, trained, atol=1e-5)


def test_ternary_weights_have_three_values_a_group_and_learn_to_live_with_them():
    made = small("mcsd")
    setting = {"rate_share": 1.0, "teacher": made, "teacher_share": 1.0}
    found = finetune(made, 40 * 4 * 32, form="ternary", **setting)
    for name, array in weights.unpacked(found).items():
        if found.formats.get(name) == "ternary":
            for group in range(0, array.shape[1], 32):
                for row in array[:, group : group + 32]:
                    assert len(set(np.abs(row)) - {0.0}) <= 1
    plain = plugins.transforms()["rtnternary"].apply(made, made.recipe, quietly)
    text = _calibrate.text(made)
    exact, near, far = (from_checkpoint(c)(text).detach() for c in (made, found, plain))
    assert (near - exact).square().mean() < 0.7 * (far - exact).square().mean()
    assert found.provenance["finetuning_tokens"] == 40 * 4 * 32


# ---- as steps of a candidate --------------------------------------------------------------------


def test_the_formats_of_a_recipe_are_known_without_its_weights():
    def of(name):
        return steps.formats(candidates.parse(name).steps)

    assert of("mcsd:nano") == ("f32", "f32")
    assert of("mcsd:nano@int4") == ("int4", "int4")
    assert of("mcsd:nano@prune50+gptq4+int8") == ("int4", "int8")
    assert of("attention:nano@qatternary+int8+kvint8") == ("ternary", "int8")


def test_a_model_too_large_to_train_gets_the_same_mix_of_formats():
    made = make(Recipe(name="test:x@rtn4+int8", shape=models.shape(), steps=("rtn4", "int8")))
    kinds = {name: form for name, form in made.formats.items()}
    assert kinds.pop("embedding") == kinds.pop("head") == "int8"
    assert set(kinds.values()) == {"int4"}


# ---- steps that choose by what enters -----------------------------------------------------------


@pytest.mark.parametrize("mixer", MIXERS)
def test_awq_leaves_the_model_as_it_was_and_int4_nearer_to_it(mixer):
    made = small(mixer)
    arrays = dict(made.arrays)
    for norm in ("mixer_norm", "ffn_norm"):  # a few values are loud, as in models of any size
        arrays[f"layers.1.{norm}"] = np.where(np.arange(64) % 16 == 3, 12, 1).astype(np.float32)
    made = replace(made, arrays=arrays)
    steps, text = plugins.transforms(), _calibrate.text(made)
    scaled = steps["awq"].apply(made, made.recipe, quietly)
    exact, same = (from_checkpoint(c)(text).detach() for c in (made, scaled))
    np.testing.assert_allclose(same, exact, atol=2e-4)
    assert not np.array_equal(scaled.arrays["layers.1.ffn.up"], arrays["layers.1.ffn.up"])
    near, far = (
        from_checkpoint(steps["rtn4"].apply(c, made.recipe, quietly))(text).detach()
        for c in (scaled, made)
    )
    assert (near - exact).square().mean() < 0.95 * (far - exact).square().mean()


def test_mixed_gives_int8_to_what_int4_would_cost_most_within_its_budget():
    sizes = {"a": 100, "b": 100, "c": 100, "d": 100}
    # 5.5 bits in the mean are 400 above int4; int8 takes 350 more for a hundred weights
    assert mixed.chosen({"a": 1.0, "b": 4.0, "c": 3.0, "d": 0.5}, sizes) == {"b"}
    assert mixed.chosen({"a": 1.0, "b": 4.0, "c": 3.0, "d": 0.5}, {**sizes, "b": 150}) == {"c"}


def test_mixed_formats_run_in_the_engine_as_in_the_reference():
    made = small("mcsd")
    found = pack(plugins.transforms()["mixed"].apply(made, made.recipe, quietly), "int8")
    kinds = {n.rpartition(".")[0]: f for n, f in found.formats.items() if "." in n}
    assert set(kinds.values()) == {"int4", "int8"}
    assert agree(found) > 0
    inside = [n for n in found.formats if "." in n]
    bits = {f: plugins.formats()[f].bits for f in ("int4", "int8")}
    weights_of = {n: candidates.tensors(made.shape)[n].shape for n in inside}
    total = sum(np.prod(s) * bits[found.formats[n]] for n, s in weights_of.items())
    assert total <= mixed.BITS * sum(np.prod(s) for s in weights_of.values())
    run = workload.parse("tg8")
    work = workload.build(found.recipe, found.shape, run, known=found.formats)
    assert {call.format for call in work.calls if call.weight} == {"int4", "int8"}
