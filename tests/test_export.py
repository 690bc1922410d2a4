"""A GGUF file of ours, read back by the library of llama.cpp's own authors."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from harness import candidates, export, ggml, make, plugins
from harness.errors import BadCheckpoint, BadInput, CannotWrite
from harness.records import RopeScaling
from tests import models

FORMATS = sorted(set(ggml.ENCODINGS) & set(plugins.formats()))


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf")


@pytest.fixture
def written(gguf, tmp_path):
    """Export, and read: metadata by key, tensors by name."""

    def read(checkpoint):
        path = tmp_path / "model.gguf"
        export.export(checkpoint, path)
        reader = gguf.GGUFReader(path)
        return (
            {key: field.contents() for key, field in reader.fields.items()},
            {tensor.name: tensor for tensor in reader.tensors},
        )

    return read


def packed(form, **changes):
    """Heads of 16 in two groups, a byte vocabulary, and rows of a multiple of 32 everywhere."""
    return models.checkpoint(models.shape(vocabulary=256, **changes), form)


def weights_of(checkpoint, name):
    """What the engine multiplies by, as float32; scales of int8 as float16, which ggml stores."""
    form = plugins.formats()[checkpoint.formats.get(name, "f32")]
    arrays = {
        key.removeprefix(name).removeprefix("."): array
        for key, array in checkpoint.arrays.items()
        if key == name or key.startswith(f"{name}.")
    }
    if "scale" in arrays:
        arrays["scale"] = arrays["scale"].astype(np.float16).astype(arrays["scale"].dtype)
    return form.unpack(arrays, candidates.tensors(checkpoint.shape)[name].shape)


def neighbours(weights, heads):
    """Row 2i of a head is its row i, row 2i + 1 its row i + w/2."""
    turned, w = np.empty_like(weights), weights.shape[0] // heads
    for head in range(heads):
        for i in range(w // 2):
            turned[head * w + 2 * i] = weights[head * w + i]
            turned[head * w + 2 * i + 1] = weights[head * w + w // 2 + i]
    return turned


@pytest.mark.parametrize("form", FORMATS)
def test_a_reader_finds_exactly_the_weights_that_the_engine_multiplies_by(gguf, written, form):
    checkpoint = packed(form)
    _, tensors = written(checkpoint)
    names = candidates.tensors(checkpoint.shape)
    assert len(tensors) == len(names)
    for name in names:
        found = tensors[export.translate(name)]
        wanted = weights_of(checkpoint, name) if name in checkpoint.formats else None
        if wanted is None:
            wanted = checkpoint.arrays[name].astype(np.float32)
        if name.endswith(("mixer.q", "mixer.k")):
            wanted = neighbours(wanted, 4 if name.endswith("q") else 2)
        values = gguf.quants.dequantize(found.data, found.tensor_type)
        np.testing.assert_array_equal(values, wanted, err_msg=name)


def test_our_int4_is_what_the_library_makes_of_the_same_weights(gguf, written):
    weights = packed("f32")
    _, tensors = written(make.pack(weights, "int4"))
    wanted = gguf.quants.quantize(
        weights.arrays["layers.1.ffn.down"], gguf.GGMLQuantizationType.Q4_0
    )
    found = np.asarray(tensors["blk.1.ffn_down.weight"].data).reshape(wanted.shape)
    # the library rounds halves up, ours to even: a level may differ where a weight is between
    assert (found == wanted).mean() > 0.99


def test_the_file_says_what_the_shape_says(written):
    shape = dict(rope_base=5e5, norm_epsilon=1e-6, tied=True, context=48)
    facts, tensors = written(packed("f32", **shape))
    assert facts["general.architecture"] == "llama"
    assert facts["llama.attention.head_count"] == 4
    assert facts["llama.attention.head_count_kv"] == 2
    assert facts["llama.attention.key_length"] == 16
    assert facts["llama.context_length"] == 48
    assert facts["llama.rope.freq_base"] == 5e5
    assert facts["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert "output.weight" not in tensors
    assert "rope_freqs.weight" not in tensors


def test_stretched_positions_are_written_as_factors_of_each_pair(written):
    linear = RopeScaling(kind="linear", factor=4.0)
    _, tensors = written(packed("f32", rope_scaling=linear))
    np.testing.assert_allclose(tensors["rope_freqs.weight"].data, np.full(8, 4.0))
    llama3 = RopeScaling(kind="llama3", factor=8.0, original_context=512)
    _, tensors = written(packed("f32", rope_scaling=llama3))
    factors = np.asarray(tensors["rope_freqs.weight"].data)
    assert factors[0] == 1.0
    assert factors[-1] == 8.0
    assert (np.diff(factors) >= 0).all()


def test_every_byte_is_its_own_token_where_the_vocabulary_is_bytes(written):
    facts, _ = written(packed("f32"))
    tokens = facts["tokenizer.ggml.tokens"]
    assert len(tokens) == 256
    assert (tokens[0], tokens[65], tokens[255]) == ("<0x00>", "<0x41>", "<0xFF>")
    assert tokens[32] == "▁"  # how llama.cpp writes a space
    facts, _ = written(models.checkpoint(models.shape()))
    assert facts["tokenizer.ggml.model"] == "no_vocab"
    assert facts["llama.vocab_size"] == 101


@pytest.mark.parametrize(
    ("form", "changes", "hint"),
    [
        ("f32", dict(mixers=("attention", "mcsd")), "no 'mcsd' mixer"),
        ("f32", dict(ffn="selective"), "no 'selective' ffn"),
        ("sparse50", {}, "no type for the format 'sparse50'"),
        ("int4", dict(hidden=72), "Q4_0 takes rows of a multiple of 32"),
        ("int8", dict(hidden=72), r"layers\.0\.ffn\.down has 72"),
    ],
)
def test_what_llama_cpp_lacks_is_refused_by_name(tmp_path, form, changes, hint):
    with pytest.raises(BadInput, match=hint):
        export.export(packed(form, **changes), tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_without_the_library_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BadInput, match="pip install gguf"):
        export.export(packed("f32"), tmp_path / "model.gguf")


def test_a_file_that_cannot_be_written_leaves_nothing(gguf, tmp_path):
    (tmp_path / "model.gguf").mkdir()
    with pytest.raises(CannotWrite, match=r"model\.gguf"):
        export.export(packed("f32"), tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_broken_checkpoint_leaves_the_old_file(gguf, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    broken = models.without(packed("f32"), "layers.1.ffn.down")
    with pytest.raises(BadCheckpoint, match=r"'layers\.1\.ffn\.down' is missing"):
        export.export(broken, path)
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["model.gguf"]
