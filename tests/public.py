"""Small folders of public weights in the layout of Hugging Face, and a forward pass of their own.

The forward pass follows modeling_llama.py as it is documented there: half-rotated queries and keys,
repeated key-value heads, a mask, float64.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 48,
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "head_dim": 24,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 160,
    "max_position_embeddings": 128,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
    "rope_scaling": LLAMA3,
    "rope_theta": 5000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 320,
}


def shapes(config):
    """Every tensor of LlamaForCausalLM by its name there."""
    width, hidden, w = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * w, config["num_key_value_heads"] * w
    found = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for i in range(config["num_hidden_layers"]):
        found |= {
            f"model.layers.{i}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": (width,),
                "self_attn.q_proj": (queries, width),
                "self_attn.k_proj": (keys, width),
                "self_attn.v_proj": (keys, width),
                "self_attn.o_proj": (width, queries),
                "post_attention_layernorm": (width,),
                "mlp.gate_proj": (hidden, width),
                "mlp.up_proj": (hidden, width),
                "mlp.down_proj": (width, hidden),
            }.items()
        }
    found["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], width)
    return found


def weights(config, dtype=torch.bfloat16, seed=0):
    rng = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes(config).items():
        values = torch.randn(shape, generator=rng)
        values = 1 + 0.2 * values if "norm" in name else values * 1.5 / math.sqrt(shape[-1])
        found[name] = values.to(dtype)
    return found


def write(folder: Path, config, tensors, shards=2):
    """Shards with an index, or one file; config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def frequencies(config):
    """inv_freq as transformers' modeling_rope_utils.py computes it."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta, w = config.get("rope_theta") or rope.get("rope_theta"), config["head_dim"]
    found = 1.0 / theta ** (torch.arange(0, w, 2).double() / w)
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "linear":
        return found / rope["factor"]
    if kind != "llama3":
        return found
    old, low, high = (
        rope[key]
        for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    length = 2 * math.pi / found
    smooth = (old / length - low) / (high - low)
    blend = (1 - smooth) * found / rope["factor"] + smooth * found
    slow = torch.where(length > old / low, found / rope["factor"], found)
    between = ~(length < old / high) & ~(length > old / low)
    return torch.where(between, blend, slow)


def forward(config, tensors, ids):
    """Logits (n, vocabulary) of token ids (n,), float64."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    heads, kv, w = (
        config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )
    n = len(ids)
    angles = torch.arange(n).double()[:, None] * frequencies(config)
    cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()

    def norm(x, gain):
        return gain * x / torch.sqrt((x * x).mean(-1, keepdim=True) + config["rms_norm_eps"])

    def turn(x):
        half = torch.cat([-x[..., w // 2 :], x[..., : w // 2]], -1)
        return x * cos + half * sin

    x = t["model.embed_tokens.weight"][torch.as_tensor(np.asarray(ids))]
    mask = torch.full((n, n), -torch.inf).double().triu(1)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = norm(x, t[at + "input_layernorm.weight"])
        q, k, v = (
            (h @ t[f"{at}self_attn.{name}_proj.weight"].T).view(n, -1, w).transpose(0, 1)
            for name in "qkv"
        )
        k, v = (a.repeat_interleave(heads // kv, 0) for a in (turn(k), v))
        scores = turn(q) @ k.transpose(1, 2) / math.sqrt(w) + mask
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, heads * w)
        x = x + mixed @ t[at + "self_attn.o_proj.weight"].T
        h = norm(x, t[at + "post_attention_layernorm.weight"])
        gate = h @ t[at + "mlp.gate_proj.weight"].T
        inner = gate * torch.sigmoid(gate) * (h @ t[at + "mlp.up_proj.weight"].T)
        x = x + inner @ t[at + "mlp.down_proj.weight"].T
    head = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    return (norm(x, t["model.norm.weight"]) @ t[head].T).numpy()
