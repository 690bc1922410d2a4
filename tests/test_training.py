"""Training: it learns, it is deterministic, an interruption changes no bit."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import plugins
from harness.errors import BadCheckpoint, BadInput, TrainingFailed, UnknownName
from harness.records import Recipe, Shape
from harness.training import batches, loop, yardstick
from harness.training.distil import Pair, distil, divergence
from harness.training.evaluate import accuracy, held_out_loss
from harness.training.finetune import finetune
from harness.training.loop import Plan, learning_rate, optimise
from harness.training.model import Model, from_checkpoint, to_checkpoint
from harness.training.train import budget, budget_loss, explore, fresh, train

SHARED = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("EDGEWISE_DATA", SHARED))
TOKENS_A_STEP = 4 * 32


def recipe(steps: int = 40, mixer: str = "mcsd", **changes: object) -> Recipe:
    shape = Shape(
        vocabulary=256, width=32, layers=2, mixers=(mixer, mixer), ffn="dense", hidden=64, heads=2,
        kv_heads=2, head_width=16, channels=4, context=32, group=16,
    )  # fmt: skip
    made = Recipe(name=f"{mixer}:tiny", shape=shape, tokens=steps * TOKENS_A_STEP, batch=4)
    return replace(made, **changes)


def same(first, second) -> bool:
    return set(first.arrays) == set(second.arrays) and all(
        np.array_equal(array, second.arrays[name]) for name, array in first.arrays.items()
    )


def tiny_run(folder: Path | None, watch=None, steps: int = 12, save: float = 0.0) -> Model:
    """A short run at the level of the loop, saving its state after every step."""
    one = recipe()
    corpus = plugins.corpora()["pydocs"]
    splits = corpus.load()
    model = fresh(one)
    plan = Plan(
        steps=steps, tokens_a_step=TOKENS_A_STEP, learning_rate=3e-3, seed=0, key="test",
        warm_up=2, folder=folder, save_every_seconds=save,
    )  # fmt: skip

    def loss(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = batches.at_step(corpus, splits, 4, 32, 0, step, steps)
        logits = model(inputs).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, targets.flatten()), torch.zeros(())

    optimise(model, loss, plan, watch)
    return model


@pytest.mark.parametrize("mixer", ["attention", "mcsd", "mcsd-paper"])
def test_training_lowers_the_loss_on_held_out_text(mixer, tmp_path):
    found = train(recipe(mixer=mixer), state_folder=tmp_path).provenance
    assert found["losses"][0][1] > found["losses"][-1][1] + 1
    assert found["validation_bits"] < 6.5
    assert found["corpus_hash"] == plugins.corpora()["pydocs"].load().hash


def test_the_same_recipe_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    first, second = (train(recipe(4), state_folder=tmp_path) for _ in range(2))
    assert same(first, second)
    assert not same(first, train(recipe(4, seed=1), state_folder=tmp_path))


@pytest.mark.parametrize("stop", [1, 7, 11])
def test_an_interrupted_run_goes_on_to_the_same_bits(stop, tmp_path):
    def interrupt(progress: loop.Progress) -> None:
        if progress.step == stop + 1:
            raise KeyboardInterrupt

    whole = tiny_run(None).export()
    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path, interrupt)
    assert list(tmp_path.iterdir())
    steps: list[int] = []
    resumed = tiny_run(tmp_path, lambda progress: steps.append(progress.step)).export()
    assert steps[0] == stop + 1, "the resumed run must not begin anew"
    assert all(np.array_equal(array, resumed[name]) for name, array in whole.items())
    assert not list(tmp_path.iterdir()), "a finished run leaves no state"


def test_a_state_of_other_settings_is_not_taken_up(tmp_path):
    def interrupt(progress: loop.Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path, interrupt)
    steps: list[int] = []
    tiny_run(tmp_path, lambda progress: steps.append(progress.step), steps=13)
    assert steps[0] == 1


def test_a_damaged_state_is_named_with_the_way_out(tmp_path):
    def interrupt(progress: loop.Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path, interrupt)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingFailed, match="delete it to start again"):
        tiny_run(tmp_path)


def test_a_state_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingFailed, match="cannot save the state"):
        tiny_run(tmp_path / "file")


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = fresh(recipe())
    plan = Plan(steps=3, tokens_a_step=1, learning_rate=1.0, seed=0, key="")
    with pytest.raises(TrainingFailed, match="step 0"):
        optimise(model, lambda _: (model.norm.sum() * float("nan"), torch.zeros(())), plan)


def test_the_learning_rate_warms_up_and_ends_at_a_tenth():
    plan = Plan(steps=1000, tokens_a_step=1, learning_rate=1.0, seed=0, key="")
    rates = [learning_rate(plan, step) for step in range(1000)]
    assert rates[0] < 0.02
    assert max(rates) == rates[100] == 1.0
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)


def test_only_matrices_decay_and_learned_rates_move_thirty_times_as_fast():
    model = fresh(recipe())
    names = {id(p): name for name, p in model.named_parameters()}
    groups = loop.optimiser_of(model).param_groups
    assert sum(len(g["params"]) for g in groups) == len(names)
    for group in groups:
        for parameter in group["params"]:
            logits = names[id(parameter)].endswith("logits")
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
            assert group["factor"] == (30.0 if logits else 1.0)


def test_progress_tells_step_loss_pace_and_time_left(tmp_path):
    seen: list[loop.Progress] = []
    train(recipe(5), seen.append, state_folder=tmp_path)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5]
    assert seen[-1].seconds_left == 0
    assert all(p.tokens_per_s > 0 and p.loss > 0 for p in seen)


def test_a_recipe_with_steps_or_without_budget_is_refused():
    for wrong in (recipe(steps=0), replace(recipe(), steps=("int8",))):
        with pytest.raises(BadInput, match="cannot be trained"):
            train(wrong)


def test_a_selective_ffn_is_drawn_to_its_budget(tmp_path):
    one = recipe(120, active=0.25)
    one = replace(one, shape=replace(one.shape, ffn="selective", hidden=256))
    model = from_checkpoint(train(one, state_folder=tmp_path))
    text = plugins.corpora()["pydocs"].load().validation[:1024]
    held_out_loss(model, text, 32)
    share = float(np.mean([float(ffn.running) for ffn in model.ffns()]))
    assert share == pytest.approx(0.25, abs=0.08)
    for active in (0.1, 0.9):  # a budget is a ceiling
        wanted = 10 * max(0.0, share - active) ** 2
        found = budget_loss(model, replace(one, active=active)).item()
        assert found == pytest.approx(wanted, abs=1e-5)
    assert budget_loss(model, one, 0.0).item() == 0, "at first all may run"
    assert [budget(one, gone) for gone in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.625, 0.25, 0.25]


def test_a_relu_ffn_is_drawn_to_its_budget_and_a_mixture_pays_for_imbalance(tmp_path):
    one = recipe(120, active=0.5)
    one = replace(one, shape=replace(one.shape, ffn="relu", hidden=256))
    model = from_checkpoint(train(one, state_folder=tmp_path))
    held_out_loss(model, plugins.corpora()["pydocs"].load().validation[:1024], 32)
    assert np.mean([float(ffn.running) for ffn in model.ffns()]) < 0.6
    mixed = fresh(replace(one, shape=replace(one.shape, ffn="moe")))
    mixed(torch.arange(64).view(2, 32))
    wanted = 0.01 * sum(ffn.imbalance.item() for ffn in mixed.ffns())
    assert budget_loss(mixed, one).item() == pytest.approx(wanted)


def test_exploring_falls_from_all_tokens_to_none_in_a_fifth_of_training():
    one = recipe(active=0.5)
    model = fresh(replace(one, shape=replace(one.shape, ffn="selective")))
    shares = []
    for step in (0, 10, 20, 99):
        explore(model, one, step, 100)
        shares.append(model.ffns()[0].random_share)
    assert shares == [1.0, 0.5, 0.0, 0.0]


def test_an_untrained_uniform_model_scores_eight_bits_a_byte():
    model = fresh(recipe())
    with torch.no_grad():
        model.head.zero_()
    text = plugins.corpora()["pydocs"].load().test
    loss = held_out_loss(model, text, 32)
    assert loss.bits == pytest.approx(8.0, abs=1e-5)
    assert loss.tokens == (len(text) - 1) // 32 * 32


def test_held_out_loss_scores_each_position_from_its_window_alone():
    model = fresh(recipe()).eval()
    text = plugins.corpora()["pydocs"].load().test[: 3 * 32 + 1]
    total = 0.0
    with torch.no_grad():
        for start in (0, 32, 64):
            logits = model(torch.from_numpy(text[start : start + 32].astype(np.int64))[None])[0]
            chance = logits.double().softmax(-1).numpy()
            total -= np.log(chance[np.arange(32), text[start + 1 : start + 33]]).sum()
    assert held_out_loss(model, text, 32, batch=2).nats == pytest.approx(total / 96, rel=1e-5)


def test_a_checkpoint_gives_back_the_same_logits(tmp_path):
    checkpoint = train(recipe(3), state_folder=tmp_path)
    first, second = from_checkpoint(checkpoint), from_checkpoint(checkpoint)
    again = to_checkpoint(first, checkpoint.recipe, {})
    assert same(checkpoint, again)
    tokens = torch.arange(64).view(2, 32)
    with torch.no_grad():
        assert torch.equal(first(tokens), second(tokens))


def test_a_checkpoint_without_a_tensor_is_refused_by_name(tmp_path):
    checkpoint = train(recipe(1), state_folder=tmp_path)
    arrays = {n: a for n, a in checkpoint.arrays.items() if n != "layers.1.ffn.down"}
    with pytest.raises(BadCheckpoint, match=r"layers\.1\.ffn\.down"):
        from_checkpoint(replace(checkpoint, arrays=arrays))
    arrays["layers.1.ffn.down"] = np.zeros((3, 3), np.float32)
    with pytest.raises(BadCheckpoint, match=r"expected \(32, 64\)"):
        from_checkpoint(replace(checkpoint, arrays=arrays))


def test_a_student_learns_from_its_teacher(tmp_path):
    teacher = train(recipe(30, mixer="attention"), state_folder=tmp_path)
    student = replace(recipe(30), name="mcsd:tiny@distil", steps=("distil",))
    found = distil(student, teacher, state_folder=tmp_path)
    assert found.provenance["teacher"] == "attention:tiny"
    assert found.provenance["losses"][-1][1] < found.provenance["losses"][0][1] - 1
    smaller = replace(recipe(), shape=replace(recipe().shape, vocabulary=64))
    with pytest.raises(BadInput, match="64 symbols"):
        distil(smaller, teacher)


def test_layers_of_a_student_are_drawn_to_those_of_its_teacher():
    """The distance is the textbook one, and its gradient reaches the student alone."""
    wide = recipe()
    narrow = replace(wide, shape=replace(wide.shape, width=16, head_width=8))
    student, teacher = fresh(narrow), fresh(wide)
    pair, text, kept = Pair(student, teacher), torch.arange(64).view(2, 32), []
    for model in (student, teacher):
        for block in model.blocks:
            block.register_forward_hook(lambda m, given, out: kept.append(out.detach()))
    with torch.no_grad():
        teacher(text)
    student(text)
    wanted, mine = kept[:2], kept[2:]
    total = 0.0
    for x, y in zip(mine, wanted, strict=True):
        a = np.pad(x.numpy(), ((0, 0), (0, 0), (0, 16)))  # a map begins by adding zeros
        a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, y.numpy()))
        total += np.square(a - b).sum(-1).mean() / 2
    assert pair.distance().item() == pytest.approx(total, rel=1e-5)
    pair.distance().backward()
    assert student.embedding.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_of_other_layers_cannot_follow_each_of_them(tmp_path):
    teacher = train(recipe(1), state_folder=tmp_path)
    found = distil(recipe(2), teacher, hidden=True, state_folder=tmp_path)
    assert set(found.arrays) == set(teacher.arrays)
    fewer = replace(recipe(2), shape=replace(recipe().shape, layers=1, mixers=("mcsd",)))
    with pytest.raises(BadInput, match="has 1 layers and its teacher"):
        distil(fewer, teacher, hidden=True)


def test_a_pair_of_equals_is_at_no_distance():
    model = fresh(recipe())
    pair = Pair(model, model)
    model(torch.arange(64).view(2, 32))
    assert pair.distance().item() == pytest.approx(0, abs=1e-10)


def test_softened_divergence_is_the_textbook_one():
    a, b = np.random.default_rng(0).normal(size=(2, 1, 5, 7))
    targets = torch.tensor([[1, 2, batches.IGNORED, 3, 0]])
    p, q = (np.exp(x[0] / 2) / np.exp(x[0] / 2).sum(1, keepdims=True) for x in (a, b))
    wanted = 4 * (q * np.log(q / p)).sum(1)[[0, 1, 3, 4]].mean()
    found = divergence(torch.from_numpy(a), torch.from_numpy(b), targets, temperature=2.0)
    assert found.item() == pytest.approx(wanted)


def test_fine_tuning_keeps_shapes_and_zeros_and_names_its_parent(tmp_path):
    parent = train(recipe(20), state_folder=tmp_path)
    arrays = dict(parent.arrays)
    mask = np.random.default_rng(0).random(arrays["layers.0.ffn.down"].shape) < 0.5
    arrays["layers.0.ffn.down"] = np.where(mask, arrays["layers.0.ffn.down"], np.float32(0))
    pruned = replace(parent, arrays=arrays)
    found = finetune(pruned, 20 * TOKENS_A_STEP, keep_zeros=True, state_folder=tmp_path)
    assert (found.arrays["layers.0.ffn.down"][~mask] == 0).all()
    assert not np.array_equal(found.arrays["head"], arrays["head"])
    assert found.provenance["parent"]
    assert found.provenance["validation_bits"] < parent.provenance["validation_bits"]
    again = finetune(pruned, 20 * TOKENS_A_STEP, keep_zeros=True, state_folder=tmp_path)
    assert same(found, again)


def test_weights_tuned_on_another_text_carry_both_hashes(tmp_path):
    parent = train(recipe(1), state_folder=tmp_path)
    other = replace(parent, provenance={**parent.provenance, "corpus_hash": "0123"})
    found = finetune(other, TOKENS_A_STEP, state_folder=tmp_path).provenance["corpus_hash"]
    assert found == f"0123+{parent.provenance['corpus_hash']}"


def test_recall_trains_on_its_own_examples_and_is_scored_by_accuracy(tmp_path):
    found = train(recipe(3, mixer="attention", corpus="recall"), state_folder=tmp_path)
    assert 0 <= found.provenance["validation_accuracy"] <= 0.2

    class Oracle(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(tokens.roll(-1, 1), 256).float()

    corpus = plugins.corpora()["recall"]
    assert accuracy(Oracle(), corpus.load().validation, corpus) == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="EDGEWISE_DATA is not set")
@pytest.mark.parametrize("which", ["plain", "rope"])
def test_the_yardstick_runs_on_65_characters(which, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_DATA", str(DATA))
    found = yardstick.run(which, steps=2, state_folder=tmp_path)
    assert found["characters"] == 2 * 12 * 64
    assert 800_000 < found["parameters"] < 830_000
    assert found["nats_per_character"] == pytest.approx(math.log(65), abs=0.6)


def test_an_unknown_yardstick_is_named():
    with pytest.raises(UnknownName, match="plain, rope"):
        yardstick.run("long")
