"""One optimiser step as a workload: what it computes, moves and holds, against PyTorch itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness import (
    candidates,
    decide,
    evidence,
    forecast,
    host,
    judge,
    measure,
    memory,
    plugins,
    table,
    workload,
)
from harness.engines.numba import random
from harness.errors import BadInput, DoesNotFit
from harness.records import Failed, Measured, Projected
from harness.spawn import Effort
from harness.training import turns
from targets import profile
from tests import models
from tests.rows import row

EXACT = 0.01
FUSED = 0.04  # what is kept, where a mixer trains by steps of its own; most are within 0.001
PLAIN = 0.25  # where PyTorch's own steps keep what they like


def recipe(name="attention:nano", **changes):
    return candidates.parse(name, corpus="characters", changes=changes)


def small(mixers, ffn="dense", b=2, n=40):
    shape = models.shape(mixers, ffn, vocabulary=65, context=n, width=32, hidden=64, head_width=8)
    return replace(recipe(batch=b), shape=shape)


@pytest.mark.parametrize(
    ("mixer", "ffn"),
    [*((m, "dense") for m in sorted(plugins.mixers())),
     *(("mcsd", f) for f in sorted(plugins.ffns()) if f != "dense")],
)  # fmt: skip
def test_the_bytes_of_a_step_are_those_that_pytorch_holds(mixer, ffn):
    made = small((mixer, mixer), ffn)
    counted, found = workload.held(made, made.shape), turns.held(made)
    # rates that are learned are float64, fixed ones and slopes are no parameters
    for part in ("weights", "gradients", "moments"):
        assert getattr(found, part) == pytest.approx(getattr(counted, part), rel=EXACT)
    plain = any(word in mixer for word in ("concat", "double", "no-"))
    assert counted.kept == pytest.approx(found.kept, rel=PLAIN if plain else FUSED)


@pytest.mark.parametrize(("b", "n"), [(1, 1), (3, 17), (2, 150)])
def test_what_is_kept_follows_batch_and_context(b, n):
    for mixers in (("attention",), ("attention-alibi",), ("mcsd", "attention")):
        made = small(mixers, b=b, n=n)
        wanted = turns.held(made).kept
        assert workload.held(made, made.shape).kept == pytest.approx(wanted, rel=FUSED)


def test_a_step_multiplies_each_weight_three_times_with_each_token():
    made = recipe("mcsd+selective:nano", batch=3, context=20)
    work = workload.build(made, made.shape, workload.of(made, "train"))
    assert (work.phase, work.tokens, work.name) == ("train", 60, "train")
    matrices = sum(
        t.shape[0] * t.shape[1]
        for name, t in candidates.tensors(made.shape).items()
        if t.packed and name != "embedding"
    )
    products = sum(c.count * c.operations for c in work.calls if c.weight)
    assert products == 3 * 2 * 60 * matrices, "a selective ffn trains all of its groups"


def test_a_step_reads_weights_twice_writes_gradients_and_moves_what_adamw_moves():
    made = recipe(batch=2, context=32)
    work = workload.build(made, made.shape, workload.of(made, "train"))
    (update,) = [c for c in work.calls if c.kernel == "adamw"]
    n = candidates.parameters(made.shape)
    assert update.state_bytes == 40 * n  # gradient read 3 times, written once; 3 arrays both ways
    streamed = workload.build(made, made.shape, workload.parse("pp64")).weight_bytes
    assert work.weight_bytes == 3 * streamed
    kept = workload.held(made, made.shape).kept
    assert work.state_bytes - update.state_bytes == pytest.approx(2 * kept, rel=0.1)


def test_a_longer_context_of_as_many_tokens_costs_attention_more_and_mcsd_not():
    def operations(name, b, n):
        made = recipe(name, batch=b, context=n)
        return workload.build(made, made.shape, workload.of(made, "train")).operations

    assert operations("mcsd:nano", 1, 512) == operations("mcsd:nano", 8, 64)
    assert operations("attention:nano", 1, 512) > 1.05 * operations("attention:nano", 8, 64)


@pytest.mark.parametrize(
    ("name", "words"),
    [("mcsd:nano@int8", "float weights, before 'int8'; ask for mcsd:nano"),
     ("attention:nano@prune50+int4", "float weights, before 'prune50'; ask for attention:nano")],
)  # fmt: skip
def test_packed_candidates_have_no_training_step(name, words):
    with pytest.raises(BadInput, match=words) as caught:
        workload.of(candidates.parse(name), "train")
    assert "\n" not in str(caught.value)


def test_a_step_is_projected_with_its_model_and_its_doubts():
    device = profile.load("rpi5")
    found = forecast.point("mcsd:nano", "train", device)
    assert isinstance(found.seconds, Projected)
    assert (found.phase, found.engine, found.tokens) == ("train", "torch", 1024)
    assert found.seconds.model.endswith("train-1")
    assert any("training" in flag for flag in found.seconds.flags)
    assert found.seconds.high / found.seconds.low > 4, "wide: no step was in the fit"
    assert isinstance(found.joules, Projected)
    prompt = forecast.point("mcsd:nano", "pp1024", device)
    assert 2 < found.seconds.value / prompt.seconds.value < 6
    assert found.resident.value > 4 * prompt.resident.value
    assert isinstance(forecast.point("mcsd:500m", "train", device).seconds, Failed), "no room"


def test_what_cannot_be_trained_here_says_so_before_it_is_tried():
    made = candidates.parse("mcsd:110m")
    runs = [workload.of(made, name) for name in ("tg8", "train")]
    with pytest.raises(DoesNotFit, match="MiB to train 2048 tokens"):
        memory.require(made, runs, 2 * 2**30)
    memory.require(made, runs[:1], 2 * 2**30)


def test_a_row_of_training_stands_in_tables_and_is_projected_elsewhere():
    known = replace(row("mcsd"), workload="train", phase="train", tokens=1024, engine="torch")
    shown = table.terminal([known], 130)
    assert "time/step" in shown
    assert "train, 1 thread, torch" in shown
    (projected,) = forecast.rows([known], [profile.load("rpi5")])
    assert (projected.workload, projected.phase) == ("train", "train")
    assert plugins.metrics()["seconds_per_token"].value(projected) is None
    assert plugins.metrics()["tokens_per_second"].value(projected) > 0


def test_a_step_is_timed_by_pytorch_beside_a_token_by_our_engine():
    made = small(("mcsd", "attention"))
    # a worker has this text without a network
    made = replace(made, corpus="pydocs", shape=replace(made.shape, vocabulary=256))
    checkpoint = random.checkpoint(replace(made, tokens=0))
    effort = Effort(processes=1, values=2, shortest=0.002)
    found = measure.measure(
        checkpoint, ["tg2", "train"], 1, effort, environment=host.describe(), quality=None
    )
    assert [(r.workload, r.engine, r.tokens) for r in found] == [
        ("tg2", "numba", 2), ("train", "torch", 80)
    ]  # fmt: skip
    step = found[1]
    assert isinstance(step.seconds, Measured)
    assert len(step.seconds.samples) == effort.values
    assert evidence.read(step.resident).value == turns.held(made).total
    assert step.peak.samples[0] > step.baseline_bytes + step.resident.samples[0]
    assert step.kernel_hash == f"torch {torch.__version__}"


def test_a_recommendation_may_ask_what_it_takes_to_train_a_candidate():
    tokens = [row(name, step=step) for name in ("mcsd", "attention") for step in ("", "int8")]
    seconds = Measured(samples=(0.3,) * 8, method="pyperf")
    step = replace(row("mcsd"), workload="train", phase="train", tokens=1024, seconds=seconds)
    limits = judge.Limits(max_seconds_per_training_step=0.5)
    found = decide.recommend([*tokens, step], "host", limits)
    assert {v.choice.row.candidate for v in found.ranked} == {"mcsd:nano", "mcsd:nano@int8"}
    assert all("training unknown" in v.misses[0] for v in found.rejected)
    slow = decide.recommend(
        [*tokens, step], "host", replace(limits, max_seconds_per_training_step=0.1)
    )
    assert any(
        "training 300 ms a step > 100 ms a step" in m for v in slow.rejected for m in v.misses
    )
