"""config.json -> Shape, or the name of what this engine does not have.

Keys and defaults are those of LlamaConfig in Hugging Face's transformers 4 and 5.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from harness.errors import BadCheckpoint
from harness.records import RopeScaling, Shape

Config: TypeAlias = Mapping[str, Any]
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
ELSEWHERE = {  # architectures people will try, and what keeps them from running
    "BitNetForCausalLM": "ternary weights and norms before output projections",
    "Gemma2ForCausalLM": "soft caps and a sliding window",
    "Gemma3ForCausalLM": "norms of queries and keys and a sliding window",
    "GemmaForCausalLM": "GELU and scaled embeddings",
    "GraniteForCausalLM": "scaled residuals",
    "MambaForCausalLM": "a selective state space",
    "MixtralForCausalLM": "a mixture of experts",
    "Phi3ForCausalLM": "q, k and v in one tensor",
    "PhiForCausalLM": "biases, layer norm and partial rotary positions",
    "Qwen2ForCausalLM": "biases of q, k and v",
    "Qwen3ForCausalLM": "norms of queries and keys",
    "RwkvForCausalLM": "time mixing",
    "SmolLM3ForCausalLM": "layers without positions",
}
SWITCHES = {  # keys that ask for something when they are true
    "attention_bias": "biases in attention",
    "qkv_bias": "biases of q, k and v",
    "mlp_bias": "biases in the ffn",
    "use_qk_norm": "norms of queries and keys",
    "qk_norm": "norms of queries and keys",
    "qk_layernorm": "norms of queries and keys",
    "rope_interleaved": "rotary pairs side by side",
    "quantization_config": "weights quantised already",
    "num_local_experts": "a mixture of experts",
    "num_experts": "a mixture of experts",
    "n_routed_experts": "a mixture of experts",
    "attn_logit_softcapping": "soft caps",
    "final_logit_softcapping": "soft caps",
    "clip_qkv": "clipped projections",
    "is_encoder_decoder": "an encoder",
}
FACTORS = {  # keys that ask for something unless they are 1
    "partial_rotary_factor": "rotary positions for part of a head",
    "embedding_multiplier": "scaled embeddings",
    "residual_multiplier": "scaled residuals",
    "logits_scaling": "scaled logits",
}
ROPES = ("default", "linear", "llama3")
LARGEST = {"num_hidden_layers": 10_000}  # a damaged file should not fill memory
LARGEST_SIZE = 2**24


def read(folder: Path) -> Config:
    """The parsed config.json. Raises BadCheckpoint."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadCheckpoint(
            f"{folder} holds no config.json; expected a folder of weights"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path} is no valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadCheckpoint(f"{path} holds a {type(found).__name__}, expected an object")
    return found


def shape(config: Config, where: str) -> Shape:
    """Dimensions of the model. Raises BadCheckpoint, naming a feature that does not run here."""
    for feature in _missing(config):
        raise BadCheckpoint(f"{where} has {feature}, which this engine does not run")
    width, heads = (_size(config, key, where) for key in ("hidden_size", "num_attention_heads"))
    layers = _size(config, "num_hidden_layers", where)
    head_width = _size(config, "head_dim", where, width // heads)
    if head_width % 2:
        raise BadCheckpoint(f"{where}: head_dim is {head_width}, expected an even number")
    try:
        return Shape(
            vocabulary=_size(config, "vocab_size", where),
            width=width,
            layers=layers,
            mixers=("attention",) * layers,
            ffn="dense",
            hidden=_size(config, "intermediate_size", where),
            heads=heads,
            kv_heads=_size(config, "num_key_value_heads", where, heads),
            head_width=head_width,
            channels=1,
            context=_size(config, "max_position_embeddings", where, 2048),
            tied=bool(config.get("tie_word_embeddings", False)),
            rope_base=_number({**_rope(config), **_given(config)}, "rope_theta", where, 10000.0),
            rope_scaling=_scaling(_rope(config), where),
            norm_epsilon=_number(config, "rms_norm_eps", where, 1e-6),
        )
    except ValueError as error:
        raise BadCheckpoint(f"{where}: {error}") from None


def _missing(config: Config) -> Iterator[str]:
    """What the model has and this engine has not."""
    yield from (f"{what} ({key})" for key, what in SWITCHES.items() if config.get(key))
    yield from (
        f"{what} ({key} {config[key]!r})"
        for key, what in FACTORS.items()
        if config.get(key) not in (None, 1)
    )
    activation = config.get("hidden_act", config.get("hidden_activation", "silu"))
    if activation not in ("silu", "swish"):
        yield f"the activation {activation!r} (hidden_act)"
    window, context = config.get("sliding_window"), config.get("max_position_embeddings")
    if window and config.get("use_sliding_window", True) and not _covers(window, context):
        yield f"attention that looks back {window!r} tokens (sliding_window)"
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and set(map(str, kinds)) - {"full_attention"}:
        yield f"layers of {', '.join(sorted(set(map(str, kinds))))} (layer_types)"
    kind = _rope(config).get("rope_type", _rope(config).get("type", "default"))
    if kind not in ROPES:
        yield f"rotary scaling of type {kind!r} (known: {', '.join(ROPES)})"
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 else names
    if name not in ARCHITECTURES:
        told = f": {ELSEWHERE[name]}" if isinstance(name, str) and name in ELSEWHERE else ""
        yield f"the architecture {name!r}{told} (known: {', '.join(ARCHITECTURES)})"


def _covers(window: object, context: object) -> bool:
    """A window as long as the context hides nothing."""
    return isinstance(window, int) and isinstance(context, int) and window >= context


def _rope(config: Config) -> Config:
    """rope_parameters of transformers 5, rope_scaling of 4."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found if isinstance(found, dict) else {"rope_type": found}


def _given(config: Config) -> Config:
    return {key: value for key, value in config.items() if value is not None}


def _scaling(rope: Config, where: str) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "linear":
        return RopeScaling(kind="linear", factor=_number(rope, "factor", where))
    if kind != "llama3":
        return None
    return RopeScaling(
        kind="llama3",
        factor=_number(rope, "factor", where),
        low_turns=_number(rope, "low_freq_factor", where),
        high_turns=_number(rope, "high_freq_factor", where),
        original_context=_size(rope, "original_max_position_embeddings", where),
    )


def _size(values: Config, key: str, where: str, default: int | None = None) -> int:
    value = values.get(key)
    if value is None and default is not None:
        return default
    most = LARGEST.get(key, LARGEST_SIZE)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise BadCheckpoint(f"{where}: {key} is {value!r}, expected a whole number up to {most}")
    return value


def _number(values: Config, key: str, where: str, default: float | None = None) -> float:
    value = values.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e12:
        raise BadCheckpoint(f"{where}: {key} is {value!r}, expected a number above 0")
    return float(value)
