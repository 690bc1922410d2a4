"""Public weights: what loads computes what their own model computes, what cannot is named."""

from __future__ import annotations

import json
import math
import shutil
import struct
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness import candidates, evidence, forecast, host, measure, packing, plugins, public, quality
from harness import checkpoint as checkpoints
from harness.engines.numba import session
from harness.errors import BadCheckpoint, BadInput, NoTokenizer, UnknownName
from harness.make import make
from harness.measure import failed_row
from harness.spawn import Effort
from harness.verify import agree
from targets import profile
from tests import public as hf

TOKENS = np.random.default_rng(0).integers(0, hf.CONFIG["vocab_size"], 90)
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    """A tied model with grouped queries, wide heads and llama3 scaling in two bf16 shards."""
    return hf.write(tmp_path / "Tiny-Llama", hf.CONFIG, hf.weights(hf.CONFIG))


def logits(name, tokens=TOKENS):
    with session.open_session(make(candidates.parse(str(name))), room=len(tokens)) as s:
        return session.feed(s, tokens, every=True)


def change(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- agreement ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "dtype", "shards"),
    [
        ({}, torch.bfloat16, 2),
        ({"tie_word_embeddings": False}, torch.float16, 3),
        ({"rope_scaling": None, "num_key_value_heads": 4}, torch.float32, 1),
        ({"rope_scaling": {"type": "linear", "factor": 3.0}}, torch.bfloat16, 1),
        (
            {"rope_theta": None, "rope_parameters": {**hf.LLAMA3, "rope_theta": 700.0}},
            torch.bfloat16,
            2,
        ),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, torch.bfloat16, 1),
    ],
    ids=["tied-bf16", "untied-f16", "plain-f32", "linear", "transformers-5", "mistral"],
)
def test_the_engine_computes_what_the_public_model_computes(tmp_path, settings, dtype, shards):
    config = {**hf.CONFIG, **settings}
    tensors = hf.weights(config, dtype)
    hf.write(tmp_path / "model", config, tensors, shards)
    found, wanted = logits(tmp_path / "model"), hf.forward(config, tensors, TOKENS)
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_format_packs_the_very_weights_of_the_folder(folder, form, monkeypatch):
    monkeypatch.setattr(packing, "VALUES", 1000)
    made = make(candidates.parse(f"{folder}@{form}"))
    up = hf.weights(hf.CONFIG)["model.layers.1.mlp.up_proj.weight"].float().numpy()
    for key, array in plugins.formats()[form].pack(up).items():
        name = f"layers.1.ffn.up.{key}" if key else "layers.1.ffn.up"
        np.testing.assert_array_equal(made.arrays[name], array)
    assert agree(made) < 0.1
    rounded = {
        name: torch.from_numpy(unpacked(plugins.formats()[form], tensor.float().numpy()))
        for name, tensor in hf.weights(hf.CONFIG).items()
    }
    found, wanted = logits(f"{folder}@{form}"), hf.forward(hf.CONFIG, rounded, TOKENS)
    cosine = (found * wanted).sum() / np.linalg.norm(found) / np.linalg.norm(wanted)
    assert cosine > 0.995, "activations alone are rounded on one side only"


def unpacked(form, weights):
    return form.unpack(form.pack(weights), weights.shape) if weights.ndim == 2 else weights


def test_a_head_that_is_stored_though_it_is_tied_is_the_embedding(tmp_path):
    tensors = hf.weights(hf.CONFIG)
    more = {"lm_head.weight": tensors["model.embed_tokens.weight"] * 2}
    more["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(12)
    hf.write(tmp_path / "model", hf.CONFIG, {**tensors, **more})
    wanted = hf.forward(hf.CONFIG, tensors, TOKENS)
    assert np.abs(logits(tmp_path / "model") - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_a_large_model_is_compared_by_its_first_layers(folder, monkeypatch):
    from harness import verify

    made = make(candidates.parse(str(folder)))
    whole = candidates.parameters(made.shape)
    monkeypatch.setattr(verify, "LARGE", whole - 1)
    assert verify._shortened(made).shape.layers == 2
    monkeypatch.setattr(verify, "LARGE", 1)
    assert verify._shortened(made).shape.layers == 1
    assert agree(make(candidates.parse(f"{folder}@int8"))) < 0.1
    monkeypatch.setattr(verify, "LARGE", whole)
    assert verify._shortened(made) is made


# ---- memory -------------------------------------------------------------------------------------


def test_packing_a_folder_takes_the_packed_weights_and_a_few_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "VALUES", 2**14)
    config = {**hf.CONFIG, "hidden_size": 256, "vocab_size": 8000, "intermediate_size": 512}
    hf.write(tmp_path / "model", config, hf.weights(config))
    recipe = candidates.parse(f"{tmp_path / 'model'}@int4")
    tracemalloc.start()
    made = public.load(recipe, recipe.origin)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    packed = sum(array.nbytes for array in made.arrays.values())
    largest = 4 * 8000 * 256
    assert peak < packed + largest / 4 + 2**20, "no float32 copy of a whole matrix"


def test_without_a_format_weights_stay_on_disk_until_they_are_asked_for(folder):
    made = make(candidates.parse(str(folder)))
    assert isinstance(made.arrays, Mapping)
    assert not isinstance(made.arrays, dict)
    name = "layers.0.mixer.q"
    assert made.arrays[name] is not made.arrays[name]
    wanted = hf.weights(hf.CONFIG)["model.layers.0.self_attn.q_proj.weight"].float().numpy()
    np.testing.assert_array_equal(made.arrays[name], wanted)


# ---- identity -----------------------------------------------------------------------------------


def test_a_recipe_says_what_the_weights_are_and_not_where(folder, tmp_path):
    recipe = candidates.parse(f"{folder}@int4")
    assert recipe.name == "./Tiny-Llama@int4"
    moved = tmp_path / "elsewhere" / "Tiny-Llama"
    shutil.copytree(folder, moved)
    again = candidates.parse(f"{moved}@int4")
    assert again.origin != recipe.origin
    assert checkpoints.recipe_hash(again) == checkpoints.recipe_hash(recipe)
    shard = sorted(moved.glob("*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    other = candidates.parse(f"{moved}@int4")
    assert checkpoints.recipe_hash(other) != checkpoints.recipe_hash(recipe)
    assert "/" not in checkpoints.file_name(recipe)
    assert checkpoints.file_name(recipe).startswith("Tiny-Llama_int4-")


def test_a_row_keeps_no_path_and_is_projected_without_the_folder(folder):
    recipe = candidates.parse(f"{folder}@int4")
    row = failed_row(recipe, "tg8", 1, "why", host.describe())
    assert row.candidate == "./Tiny-Llama@int4"
    assert row.recipe.origin.folder == "Tiny-Llama"
    assert row.recipe.origin.files == recipe.origin.files
    shutil.rmtree(folder)
    there = forecast.forecast(row, profile.load("rpi5"))
    assert there.seconds.value > 0
    assert there.recipe == row.recipe


def test_public_weights_are_timed_and_never_called_random(folder):
    checkpoint = make(candidates.parse(f"{folder}@int8"))
    effort = Effort(processes=1, values=2, warmups=1, shortest=0.002)
    (row,) = measure.measure(
        checkpoint, ["tg8"], 1, effort, environment=host.describe(), quality=None
    )
    assert row.seconds.samples
    assert evidence.RANDOM not in evidence.notes(row)
    assert evidence.UNSCORED in evidence.notes(row)


def test_a_folder_and_a_short_name_cannot_be_confused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert candidates.parse("./Tiny-Llama").shape.layers == 3
    with pytest.raises(BadInput, match="MIXER"):
        candidates.parse("Tiny-Llama")
    with pytest.raises(BadInput, match="there is no such folder"):
        candidates.parse("./Missing@int4")
    with pytest.raises(BadInput, match="prune50 tunes on bytes; public weights take a format"):
        candidates.parse("./Tiny-Llama@prune50+int4")
    with pytest.raises(UnknownName, match="unknown step 'int3'"):
        candidates.parse("./Tiny-Llama@int3")
    both = make(candidates.parse("./Tiny-Llama@int8+kvint8"))
    assert (both.recipe.name, both.shape.cache) == ("./Tiny-Llama@int8+kvint8", "int8")
    assert make(candidates.parse("./Tiny-Llama@kvf16")).shape.cache == "f16"
    strange = folder.rename(tmp_path / "a@b")
    assert candidates.parse(f"{strange}@int8").name == "./a@b@int8"
    base = candidates.base(candidates.parse(f"{strange}@int8"))
    assert base == candidates.parse(str(strange))


# ---- what cannot run here -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"attention_bias": True}, "biases in attention (attention_bias)"),
        ({"mlp_bias": True}, "biases in the ffn (mlp_bias)"),
        ({"architectures": ["Qwen2ForCausalLM"]}, "biases of q, k and v"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "norms of queries and keys"),
        ({"architectures": ["MixtralForCausalLM"]}, "a mixture of experts"),
        ({"architectures": ["FalconForCausalLM"]}, "the architecture 'FalconForCausalLM'"),
        ({"architectures": None}, "the architecture None"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "the activation 'gelu_pytorch_tanh'"),
        ({"sliding_window": 64}, "looks back 64 tokens (sliding_window)"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"num_local_experts": 8}, "a mixture of experts (num_local_experts)"),
        ({"quantization_config": {"quant_method": "gptq"}}, "weights quantised already"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rotary scaling of type 'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "type 'dynamic'"),
        ({"partial_rotary_factor": 0.5}, "rotary positions for part of a head"),
        ({"use_qk_norm": True}, "norms of queries and keys (use_qk_norm)"),
        ({"final_logit_softcapping": 30.0}, "soft caps (final_logit_softcapping)"),
        ({"residual_multiplier": 0.22}, "scaled residuals"),
    ],
)
def test_what_the_engine_has_not_is_refused_by_its_name(folder, settings, says):
    change(folder, **settings)
    with pytest.raises(BadCheckpoint, match="which this engine does not run") as told:
        candidates.parse(str(folder))
    assert says in one_line(told)


def test_a_window_that_is_not_in_use_hides_nothing(folder):
    change(folder, sliding_window=64, use_sliding_window=False)
    assert candidates.parse(str(folder)).shape.context == 128
    change(folder, sliding_window=128, use_sliding_window=True)
    assert candidates.parse(str(folder)).shape.context == 128


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"num_hidden_layers": 10**9}, "expected a whole number up to 10000"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
        ({"head_dim": 23}, "expected an even number"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0"),
        ({"rope_scaling": {**hf.LLAMA3, "factor": "8"}}, "factor is '8'"),
        ({"rope_scaling": {**hf.LLAMA3, "low_freq_factor": 5.0}}, "turns must rise"),
        ({"num_hidden_layers": 4}, "tensor 'model.layers.3.input_layernorm.weight' is missing"),
        ({"num_hidden_layers": 2}, "'model.layers.2.*and 8 more has no place"),
        (
            {"intermediate_size": 128},
            r"mlp.gate_proj.weight' has shape \(160, 64\), expected \(128",
        ),
        ({"tie_word_embeddings": False}, "tensor 'lm_head.weight' is missing"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(folder, settings, says):
    change(folder, **settings)
    with pytest.raises(BadCheckpoint, match=says) as told:
        make(candidates.parse(str(folder)))
    one_line(told)


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def cut(folder):
    path = shards(folder)[0]
    path.write_bytes(path.read_bytes()[:-100])


def cut_to_nothing(folder):
    shards(folder)[1].write_bytes(b"\x10")


def long_header(folder):
    path = shards(folder)[0]
    path.write_bytes(struct.pack("<Q", 2**40) + path.read_bytes()[8:])


def garbage(folder):
    path = shards(folder)[0]
    path.write_bytes(path.read_bytes()[:8] + b"\xff" * 5000)


def shard_gone(folder):
    shards(folder)[0].unlink()


def index_of(**changes):
    def apply(folder):
        path = folder / INDEX
        index = json.loads(path.read_text())
        index["weight_map"] |= changes
        path.write_text(json.dumps(index))

    return apply


def no_index(folder):
    (folder / INDEX).write_text("[1, 2")


def rewritten(name, tensor):
    def apply(folder):
        tensors = hf.weights(hf.CONFIG)
        tensors[name] = tensor(tensors[name]) if callable(tensor) else tensor
        shutil.rmtree(folder)
        hf.write(folder, hf.CONFIG, tensors)

    return apply


def not_a_number(tensor):
    tensor[3, 2] = math.nan
    return tensor


def pickles_only(folder):
    for path in [*shards(folder), folder / INDEX]:
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def nothing(folder):
    for path in [*shards(folder), folder / INDEX]:
        path.unlink()


def twice(folder):
    shutil.copy(shards(folder)[0], folder / "more.safetensors")
    (folder / INDEX).unlink()


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "truncated: tensor '.*' ends at byte"),
        (cut_to_nothing, "truncated or no safetensors file"),
        (long_header, "truncated or no safetensors file"),
        (garbage, "malformed header"),
        (shard_gone, "cannot be read|does not exist"),
        (index_of(**{NORM: "../../etc/passwd.safetensors"}), "not the name of a safetensors file"),
        (index_of(**{NORM: "..\\weights.safetensors"}), "not the name of a safetensors file"),
        (index_of(**{NORM: "pytorch_model.bin"}), "not the name of a safetensors file"),
        (index_of(**{"made.up": "model-00001-of-00002.safetensors"}), "'made.up' is not in"),
        (no_index, "expected an object with a weight_map"),
        (rewritten("model.layers.1.mlp.up_proj.weight", not_a_number), "up_proj.*not finite"),
        (rewritten("model.layers.0.self_attn.q_proj.bias", torch.ones(96)), "q_proj.bias' has no"),
        (rewritten(NORM, torch.ones(65)), r"norm.weight' has shape \(65,\), expected \(64,\)"),
        (rewritten(NORM, torch.ones(64, dtype=torch.int8)), "stored as I8; known: F32, F16, BF16"),
        (pickles_only, "pytorch_model.bin is a pickle, which can run code"),
        (nothing, "holds no \\*.safetensors"),
        (twice, "is in .* too"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["", "@int4"])
def test_a_damaged_folder_is_one_line(folder, damage, says, form):
    damage(folder)
    with pytest.raises(BadCheckpoint, match=says) as told:
        logits(f"{folder}{form}")
    one_line(told)


@pytest.mark.parametrize("text", ["", "{", "[]", '"model"', "\x00"])
def test_a_config_that_is_no_object_is_one_line(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(BadCheckpoint, match=r"config\.json") as told:
        candidates.parse(str(folder))
    one_line(told)


def test_a_folder_without_a_config_is_one_line(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"holds no config\.json"):
        candidates.parse(f"{tmp_path}/")


# ---- text ---------------------------------------------------------------------------------------


def trained_tokenizer(folder, template=False):
    """A byte-level BPE of 319 tokens trained here, <end> first, as SmolLM2's is made."""
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=319,
        special_tokens=["<end>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = plugins.corpora()["pydocs"].load().train.tobytes().decode()[:200_000]
    library.train_from_iterator([text], trainer)
    if template:
        library.post_processor = tokenizers.processors.TemplateProcessing(
            single="<end> $A", special_tokens=[("<end>", 0)]
        )
    library.save(str(folder / "tokenizer.json"))
    return library


@pytest.mark.parametrize("form", ["", "@int8"])
def test_quality_is_all_nats_over_all_bytes_of_the_held_out_text(folder, form):
    library = trained_tokenizer(folder)
    tensors = hf.weights(hf.CONFIG)
    checkpoint = make(candidates.parse(f"{folder}{form}"))
    found = quality.score(checkpoint, blocks=5)
    test = plugins.corpora()["pydocs"].load().test.tobytes()
    size, nats, counted, each = 127, 0.0, 0, []
    for i in np.linspace(0, len(test) // size - 1, 5).astype(int):
        text = test[i * size : (i + 1) * size].decode("ascii")
        ids = [0, *library.encode(text).ids]
        rows = torch.from_numpy(hf.forward(hf.CONFIG, tensors, ids)).log_softmax(-1)
        nats -= float(rows[range(len(ids) - 1), ids[1:]].sum())
        each.append(-float(rows[range(len(ids) - 1), ids[1:]].sum()) / math.log(2) / size)
        counted += len(text)
    wanted = nats / counted / math.log(2)
    assert found.value == pytest.approx(wanted, rel=1e-4 if not form else 1e-2)
    assert found.standard_error == pytest.approx(np.std(each, ddof=1) / 5**0.5, rel=1e-2)
    assert (found.metric, found.blocks, found.corpus) == ("bits per byte", 5, "pydocs")
    assert found.flags == (quality.PUBLIC,)


def test_without_a_token_of_beginning_the_first_one_is_given(folder):
    library = trained_tokenizer(folder)
    change(folder, bos_token_id=None, eos_token_id=None)
    found = quality.score(make(candidates.parse(str(folder))), blocks=4)
    test = plugins.corpora()["pydocs"].load().test.tobytes()
    nats, counted = 0.0, 0
    for i in np.linspace(0, len(test) // 127 - 1, 4).astype(int):
        text = test[i * 127 : (i + 1) * 127].decode("ascii")
        ids = library.encode(text).ids
        rows = torch.from_numpy(hf.forward(hf.CONFIG, hf.weights(hf.CONFIG), ids)).log_softmax(-1)
        nats -= float(rows[range(len(ids) - 1), ids[1:]].sum())
        counted += len(text) - len(library.decode(ids[:1]))
    assert found.value == pytest.approx(nats / counted / math.log(2), rel=1e-4)


def test_windows_begin_and_end_between_characters(folder):
    from harness import reading

    trained_tokenizer(folder)
    checkpoint = make(candidates.parse(str(folder)))
    spec = plugins.corpora()["pydocs"]
    text = "äöü€𝄞" * 200
    raw = np.frombuffer(text.encode(), np.uint8)
    found = reading.windows(checkpoint, checkpoint.recipe.origin, spec, raw, 10**6)
    assert sum(window.size for window in found) in range(raw.size - 130, raw.size + 1)
    assert all(window.inputs[0] == 0 for window in found)


@pytest.mark.parametrize("template", [False, True])
def test_generate_writes_text_by_the_folders_tokenizer(folder, template, monkeypatch, capsysbinary):
    from harness.cli import main

    trained_tokenizer(folder, template)
    words = ["edgewise", "generate", f"{folder}@int8", "--prompt", "The with ä", "--tokens", "9"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsysbinary.readouterr()
    assert stop.value.code in (0, None)
    assert out.decode().startswith("The with ä")
    assert b"tokens/s" in err


def test_half_a_character_waits_for_the_rest(folder):
    from harness.generate import language

    trained_tokenizer(folder)
    speech = language(candidates.parse(str(folder)))
    text = "with ä€𝄞 end"
    pieces = list(speech.pieces(speech.encode(text)))
    assert b"".join(pieces).decode() == text
    assert all(piece.decode() is not None for piece in pieces)
    assert len(pieces) > len(text.split())
    assert list(speech.pieces([0, *speech.encode("never read")])) == []


def test_without_the_package_a_line_says_what_to_install(folder, monkeypatch):
    (folder / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(NoTokenizer, match=r"pip install 'edgewise\[tokenizers\]'") as told:
        quality.score(make(candidates.parse(str(folder))), blocks=2)
    one_line(told)


def test_without_a_tokenizer_a_folder_has_speed_only(folder):
    with pytest.raises(NoTokenizer, match=r"holds no tokenizer\.json: speed only"):
        quality.score(make(candidates.parse(str(folder))), blocks=2)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": "1.0", "model": {"type": "X"}}'])
def test_a_broken_tokenizer_is_one_line(folder, content):
    pytest.importorskip("tokenizers")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(BadCheckpoint, match="is no valid tokenizer") as told:
        quality.score(make(candidates.parse(str(folder))), blocks=2)
    one_line(told)


def test_a_tokenizer_larger_than_the_model_is_refused(folder):
    trained_tokenizer(folder)
    recipe = candidates.parse(str(folder))
    small = replace(make(recipe), shape=replace(recipe.shape, vocabulary=300))
    with pytest.raises(BadCheckpoint, match="has 319 tokens, the model has 300"):
        quality.score(small, blocks=2)


def test_token_corpora_are_not_for_public_weights(folder):
    trained_tokenizer(folder)
    with pytest.raises(BadInput, match="recall is made of tokens of its own"):
        quality.score(make(candidates.parse(str(folder))), corpus="recall")
