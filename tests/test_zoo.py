"""The dimensions of public models, held against counts of their tensors that are not ours."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import numpy as np
import pytest

from harness import (
    candidates,
    evidence,
    forecast,
    host,
    measure,
    memory,
    packing,
    plugins,
    sizes,
    workload,
)
from harness.engines.numba import random
from harness.errors import DoesNotFit
from targets import profile

PUBLIC = [
    size for size in sizes.names()
    if size not in ("pico", "nano", "micro", "17m", "110m", "500m")
]  # fmt: skip
OWN = {size: "mcsd" if size.startswith("mcsd") else "attention" for size in PUBLIC}


def raw(size):
    return tomllib.loads((sizes.ZOO / f"{size}.toml").read_text("utf-8"))


def llama(z, ffn):
    """Parameters of a stack of the Llama shape, matrix by matrix."""
    queries, keys = z["heads"] * z["head_width"], z["kv_heads"] * z["head_width"]
    layer = z["width"] * (2 * queries + 2 * keys + 3 * ffn + 2)
    ends = (1 if z.get("tied") else 2) * z["vocabulary"]
    return z["layers"] * layer + z["width"] * (ends + 1)


def mamba(z):
    """Gu & Dao 2023, section 3.4: state 16, expansion 2, convolution 4, step rank width/16."""
    d, inner, rank = z["width"], 2 * z["width"], z["width"] // 16
    projections = d * 2 * inner + inner * (rank + 32) + rank * inner + inner + inner * d
    layer = projections + 5 * inner + 16 * inner + inner + d
    return z["layers"] * layer + z["vocabulary"] * d + d


def rwkv(z):
    """Peng et al. 2023: time mixing of 4 matrices, channel mixing of 9, and 11 vectors a layer."""
    d = z["width"]
    return z["layers"] * (13 * d * d + 11 * d) + 2 * z["vocabulary"] * d + 4 * d


def published(size, z):
    """The public model's own count, with the parts that our stack does without."""
    queries, keys = z["heads"] * z["head_width"], z["kv_heads"] * z["head_width"]
    if size.startswith("mamba"):
        return mamba(z)
    if size.startswith("rwkv"):
        return rwkv(z)
    if size.startswith("mcsd"):  # 4 gates, an output, ffn, 2 norms, 1 norm of channels, 2 decays
        width = z["width"]
        layer = 5 * width**2 + 3 * width * 4 * width + 3 * width + 2 * z["channels"]
        return z["layers"] * layer + z["vocabulary"] * width + width
    extra = 0
    if size.startswith("qwen"):
        extra = queries + 2 * keys  # biases
    if size == "gemma-3-1b":
        extra = 2 * z["width"] + 2 * z["head_width"]  # norms after, norms of queries and keys
    if size == "bitnet-2b":
        extra = queries + z["hidden"]["attention"]  # norms before output projections
    return llama(z, z["hidden"]["attention"]) + z["layers"] * extra


def test_the_zoo_has_the_models_people_ask_for():
    assert len(PUBLIC) >= 16
    families = {size.partition("-")[0] for size in PUBLIC}
    assert {"smollm2", "qwen2.5", "llama", "tinyllama", "gemma", "phi", "mamba", "rwkv"} <= families
    assert {"bitnet", "mcsd"} <= families


@pytest.mark.parametrize("size", PUBLIC)
def test_the_stated_parameters_are_those_of_the_public_model(size):
    z = raw(size)
    assert published(size, z) == pytest.approx(z["parameters"], rel=1e-3)
    ours = candidates.parameters(candidates.parse(f"{OWN[size]}:{size}").shape)
    assert ours == pytest.approx(z["parameters"], rel=0.02)


@pytest.mark.parametrize("size", PUBLIC)
def test_a_size_without_a_stand_in_is_the_public_model_to_the_last_parameter(size):
    z = raw(size)
    ours = candidates.parameters(candidates.parse(f"{OWN[size]}:{size}").shape)
    if not z.get("stand_in"):
        assert ours == z["parameters"]
    elif ours != z["parameters"]:
        assert z["stand_in"].startswith(("without", "a model of", "full", "weights", "its"))


@pytest.mark.parametrize("size", PUBLIC)
def test_every_size_says_where_its_numbers_are_from(size):
    z = raw(size)
    assert z["source"].startswith(("https://", "arXiv", "Gu & Dao"))
    assert "\n" not in z["source"]
    assert not z["trained"]


def test_details_of_public_models_reach_the_shape():
    llama_shape = candidates.parse("attention:llama-3.2-1b@int4").shape
    assert (llama_shape.rope_base, llama_shape.norm_epsilon) == (500_000.0, 1e-5)
    assert llama_shape.rope_scaling.kind == "llama3"
    assert llama_shape.rope_scaling.factor == 32.0
    qwen = candidates.parse("attention:qwen2.5-0.5b").shape
    assert (qwen.norm_epsilon, qwen.rope_scaling, qwen.tied) == (1e-6, None, True)
    gemma = candidates.parse("attention:gemma-3-1b").shape
    assert gemma.heads * gemma.head_width != gemma.width


# ---- stand-ins ----------------------------------------------------------------------------------


def test_nobody_takes_a_transformer_of_mambas_size_for_mamba():
    from harness.cli.catalogue import entries

    name = "attention:mamba-130m@int4"
    assert "state space does not run here" in candidates.stand_in(name)
    assert "stand-in: a model of Mamba's" in entries("candidates")["attention:mamba-130m"]
    assert "stand-in" in entries("sizes")["mamba-130m"]
    assert "stand-in" not in entries("sizes")["llama-2-7b"]
    row = forecast.point(name, "tg16", profile.load("rpi5"))
    assert any(note.startswith("stand-in: ") for note in evidence.notes(row))
    again = forecast.forecast(row, profile.load("rpi4"))
    assert any(note.startswith("stand-in: ") for note in evidence.notes(again))


def test_a_measured_row_of_a_stand_in_says_so():
    made = random.checkpoint(candidates.parse("attention:nano", tokens=0))
    renamed = replace(made, recipe=replace(made.recipe, name="attention:rwkv-4-169m"))
    (flag,) = measure._flags(workload.parse("tg8"), renamed)
    assert flag.startswith("stand-in: ")
    assert measure._flags(workload.parse("tg8"), made) == ()


# ---- large models -------------------------------------------------------------------------------


def test_the_three_sizes_of_the_paper_are_projected_as_flat_in_context():
    near, far = (
        forecast.point("mcsd:mcsd-1.6b@int4", name, profile.load("rpi5"))
        for name in ("tg16", "tg16 @ d16384")
    )
    assert far.seconds.value == pytest.approx(near.seconds.value, rel=0.01)
    assert far.resident.value == near.resident.value
    growing = [
        forecast.point("attention:mcsd-1.6b@int4", name, profile.load("rpi5")).resident.value
        for name in ("tg16", "tg16 @ d16384")
    ]
    assert growing[1] > 1.5 * growing[0]


def test_what_cannot_fit_is_one_line_before_anything_is_made():
    recipe = candidates.parse("attention:mcsd-10b")
    with pytest.raises(DoesNotFit, match=r"attention:mcsd-10b needs \d+ MiB at a context") as told:
        memory.require(recipe, [workload.parse("tg8")], 24 * 2**30)
    assert "\n" not in str(told.value)
    memory.require(candidates.parse("attention:mcsd-10b@int4"), [workload.parse("tg8")], 24 * 2**30)
    memory.require(recipe, [workload.parse("tg8")], 0)


def test_random_weights_of_a_large_model_take_a_few_of_its_rows():
    made = random.checkpoint(candidates.parse("attention:smollm2-135m@int4"))
    distinct = {id(array): array.nbytes for array in made.arrays.values()}
    stored = sum(array.nbytes for array in made.arrays.values())
    assert sum(distinct.values()) < stored / 2
    embedding = made.arrays["embedding"]
    assert embedding.shape == (49152, 288)
    repeated = packing.VALUES // 576
    np.testing.assert_array_equal(embedding[:repeated], embedding[repeated : 2 * repeated])


@pytest.mark.parametrize("form", sorted(plugins.formats()))
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_packing_a_few_rows_at_a_time_changes_nothing(form, rows, monkeypatch):
    monkeypatch.setattr(packing, "VALUES", 7 * 96)
    weights = np.random.default_rng(rows).standard_normal((rows, 96)).astype(np.float32)
    spec = plugins.formats()[form]
    found, wanted = packing.pack(spec, weights.shape, weights.__getitem__), spec.pack(weights)
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


def test_this_machine_is_asked_when_no_size_is_given():
    here = host.describe().memory_bytes
    run = workload.parse("tg8")
    recipe = candidates.parse("attention:mcsd-10b")
    if 0 < here < 36 * 2**30:
        with pytest.raises(DoesNotFit):
            memory.require(recipe, [run])
