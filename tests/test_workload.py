"""Workloads: what one run executes, counted a second way."""

from __future__ import annotations

import pytest

from harness import candidates, plugins, workload
from harness.engines.numba import arenas
from harness.errors import BadInput
from tests import models

MIXERS, FORMATS = sorted(plugins.mixers()), sorted(plugins.formats())


def built(name, run):
    recipe = candidates.parse(name)
    return workload.build(recipe, recipe.shape, workload.parse(run))


def matrices(shape):
    """Values of all matrices a token passes through: the embedding is only looked up."""
    found = candidates.tensors(shape)
    found.pop("embedding")
    return sum(t.shape[0] * t.shape[1] for t in found.values() if t.packed)


@pytest.mark.parametrize(
    ("name", "phase", "tokens", "depth"),
    [
        ("pp128", "prefill", 128, 0), ("tg64", "decode", 64, 0), ("ttft", "prefill", 128, 0),
        ("tg64 @ d4096", "decode", 64, 4096), ("pp1 @ d7", "prefill", 1, 7),
    ],
)  # fmt: skip
def test_a_workload_is_read_from_its_name(name, phase, tokens, depth):
    run = workload.parse(name)
    assert (run.name, run.phase, run.tokens, run.depth) == (name, phase, tokens, depth)


@pytest.mark.parametrize(
    "name", ["", "pp", "tg-1", "pp0", "tg64@d", "train me", "pp1e9", "tg9999999"]
)
def test_an_unknown_workload_is_answered_with_those_there_are(name):
    with pytest.raises(BadInput, match=r"workload '.*'"):
        workload.parse(name)


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_decoded_token_reads_every_matrix_once(mixer):
    work = built(f"{mixer}:nano", "tg64")
    shape = candidates.parse(f"{mixer}:nano").shape
    others = candidates.parameters(shape) - matrices(shape) - shape.vocabulary * shape.width
    assert 4 * matrices(shape) <= work.weight_bytes <= 4 * (matrices(shape) + others)
    # what is not a matrix product is a few per cent of the operations
    assert 2 * matrices(shape) < work.operations < 1.25 * 2 * matrices(shape)


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_takes_its_bits(form):
    plain, packed = built("attention:110m", "tg64"), built(f"attention:110m@{form}", "tg64")
    bits = plugins.formats()[form].bits
    # scales of rows, and half bytes that the masks of sparse int4 lose
    near = pytest.approx(bits / 32, rel=0.01, abs=0.06 / 32)
    assert packed.weight_bytes / plain.weight_bytes == near
    whole, stored = (
        sum(c.count * c.operations for c in w.calls if c.weight) for w in (plain, packed)
    )
    assert stored == pytest.approx(whole * plugins.formats()[form].density, rel=1e-6)
    assert packed.state_bytes == plain.state_bytes
    matrix = next(c for c in packed.calls if c.format == form and c.weight_bytes and c.weight)
    assert matrix.arithmetic == plugins.formats()[form].arithmetic


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_prompt_does_the_work_of_its_tokens_and_reads_weights_once(mixer):
    prompt, token = built(f"{mixer}:micro", "pp64"), built(f"{mixer}:micro", "tg64")
    heads = 2 * 256 * 256  # only the last token of a prompt needs logits
    alone = token.operations - heads
    assert prompt.operations - heads == pytest.approx(64 * alone, rel=0.02)
    assert prompt.weight_bytes == pytest.approx(token.weight_bytes, rel=0.01)


def test_attention_reads_more_with_depth_and_mcsd_does_not():
    shallow, deep = (built("attention:nano", f"tg64 @ d{depth}") for depth in (0, 4096))
    per_token = 2 * 4 * 4 * 32 * 4  # k and v, four heads of 32, float32, four layers
    assert deep.state_bytes - shallow.state_bytes == 4096 * per_token
    assert deep.resident_bytes - shallow.resident_bytes == 4096 * per_token
    for mixer in ("mcsd", "mcsd-paper"):
        shallow, deep = (built(f"{mixer}:nano", f"tg64 @ d{depth}") for depth in (0, 4096))
        assert deep.state_bytes == shallow.state_bytes
        assert deep.operations == shallow.operations


def test_groups_that_do_not_run_cost_nothing():
    dense, selective = built("mcsd:nano", "tg64"), built("mcsd+selective:nano", "tg64")
    shape = candidates.parse("mcsd:nano").shape
    ffn = 3 * shape.layers * shape.width * shape.hidden
    saved = 2 * ffn * (1 - candidates.SELECTIVE_ACTIVE)
    assert dense.operations - selective.operations == pytest.approx(saved, rel=0.06)
    assert dense.weight_bytes - selective.weight_bytes == pytest.approx(2 * saved, rel=0.06)


@pytest.mark.parametrize("ffn", sorted(plugins.ffns()))
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("form", ["f32", "int8", "int4"])
def test_bytes_that_stay_in_memory_are_those_the_engine_lays_out(mixer, ffn, form):
    recipe = candidates.parse(f"{mixer}+{ffn}:nano@{form}")
    work = workload.build(recipe, recipe.shape, workload.parse("tg64 @ d100"))
    laid_out = arenas.build(models.checkpoint(recipe.shape, form), 164, 1, 1)
    held = laid_out.weights.nbytes + laid_out.small.nbytes + laid_out.state.nbytes
    assert work.resident_bytes == pytest.approx(held, rel=0.01)


def test_the_calls_of_a_stack_of_two_mixers_are_those_of_both():
    recipe = candidates.parse("attention:nano")
    shape = models.shape(("attention", "mcsd", "attention"))
    work = workload.build(recipe, shape, workload.parse("tg8"))
    count = {c.kernel: c.count for c in work.calls if c.kernel in ("attention", "mcsd")}
    assert count == {"attention": 2, "mcsd": 1}
    assert sum(c.count for c in work.calls if c.kernel == "rmsnorm") == 2 * 3 + 1
