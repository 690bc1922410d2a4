"""A Transformer's checkpoint -> a GGUF file on which llama.cpp computes the same, level for level.

Nothing is rounded again; ggml.py says how. The file holds one tensor after the other, so one is in
memory at a time. Source: docs/gguf.md of ggml, and the llama architecture of llama.cpp.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from harness import candidates
from harness.checkpoint import stored
from harness.errors import BadInput, CannotWrite
from harness.ggml import ENCODINGS, GROUP
from harness.mixers.attention.spec import speeds
from harness.records import Array, Checkpoint, Shape, Tensor

if TYPE_CHECKING:
    from gguf import GGUFWriter

NAMES = {  # canonical name, without the layer -> that of llama.cpp's llama architecture
    "embedding": "token_embd",
    "norm": "output_norm",
    "head": "output",
    "mixer_norm": "attn_norm",
    "mixer.q": "attn_q",
    "mixer.k": "attn_k",
    "mixer.v": "attn_v",
    "mixer.o": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn.gate": "ffn_gate",
    "ffn.up": "ffn_up",
    "ffn.down": "ffn_down",
}


def export(checkpoint: Checkpoint, path: Path) -> str:
    """Write the file, and return the ggml type of its matrices.

    Raises BadInput, naming what llama.cpp has no counterpart for or that `gguf` is not installed,
    and CannotWrite; then no file is left.
    """
    check_shape(checkpoint.recipe.name, checkpoint.shape)
    _check_formats(checkpoint)
    library = _library()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".exporting-")
        os.close(handle)
        kind = _write(library, checkpoint, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error}; no file was left") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return kind


def check_shape(name: str, shape: Shape) -> None:
    """Raise BadInput at the first thing that the llama architecture of llama.cpp lacks."""
    for mixer in shape.mixers:
        if mixer != "attention":
            raise _refusal(name, f"it has no {mixer!r} mixer; only 'attention' stacks go there")
    if shape.ffn != "dense":
        raise _refusal(name, f"it has no {shape.ffn!r} ffn; only 'dense' ones go there")


def _check_formats(checkpoint: Checkpoint) -> None:
    for name, tensor in candidates.tensors(checkpoint.shape).items():
        form, columns = _format_of(checkpoint, name), tensor.shape[-1]
        if form not in ENCODINGS:
            why = f"it has no type for the format {form!r}; known: {', '.join(ENCODINGS)}"
            raise _refusal(checkpoint.recipe.name, why)
        kind = ENCODINGS[form].kind
        if kind.startswith("Q") and columns % GROUP:
            why = f"its {kind} takes rows of a multiple of {GROUP} weights, {name} has {columns}"
            raise _refusal(checkpoint.recipe.name, why)


def _refusal(name: str, why: str) -> BadInput:
    return BadInput(f"{name} cannot be exported for llama.cpp: {why}")


def interleave(rows: Array, heads: int) -> Array:
    """Rows of q or k (heads*w, ...) with i and i + w/2 of each head made neighbours.

    llama.cpp turns neighbours in this architecture, Edgewise the halves of a head. Whole rows
    move, so packed ones do as well.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _format_of(checkpoint: Checkpoint, name: str) -> str:
    return checkpoint.formats.get(name, "f32")


def _write(library: ModuleType, checkpoint: Checkpoint, path: str) -> str:
    specs, stretch = candidates.tensors(checkpoint.shape), _stretch(checkpoint.shape)
    main = ENCODINGS[_format_of(checkpoint, "layers.0.ffn.down")].kind
    writer = library.GGUFWriter(path, "llama")
    try:
        _describe(writer, library, checkpoint, main)
        for name, tensor in specs.items():
            kind = library.GGMLQuantizationType[ENCODINGS[_format_of(checkpoint, name)].kind]
            block, block_bytes = library.GGML_QUANT_SIZES[kind]
            size = math.prod(tensor.shape) // block * block_bytes
            # the type of array only tells the library that the shape counts weights
            writer.add_tensor_info(translate(name), tensor.shape, np.dtype("f4"), size, kind)
        if stretch is not None:
            writer.add_tensor_info(
                "rope_freqs.weight", stretch.shape, stretch.dtype, stretch.nbytes
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in specs.items():
            writer.write_tensor_data(encode(checkpoint, name, tensor))
        if stretch is not None:
            writer.write_tensor_data(stretch)
    finally:
        writer.close()
    return main


def translate(name: str) -> str:
    """The name of a tensor in the file: `layers.3.mixer.q` is `blk.3.attn_q.weight`."""
    if not name.startswith("layers."):
        return f"{NAMES[name]}.weight"
    _, layer, part = name.split(".", 2)
    return f"blk.{layer}.{NAMES[part]}.weight"


def encode(checkpoint: Checkpoint, name: str, tensor: Tensor) -> Array:
    """A tensor as the file holds it, row by row, in bytes. Raises BadCheckpoint without it."""
    arrays, shape = stored(checkpoint, name, tensor), checkpoint.shape
    rows = ENCODINGS[_format_of(checkpoint, name)].rows(arrays)
    if name.endswith((".mixer.q", ".mixer.k")):
        rows = interleave(rows, shape.heads if name.endswith("q") else shape.kv_heads)
    return np.ascontiguousarray(rows).view(np.uint8)


def _describe(writer: GGUFWriter, library: ModuleType, checkpoint: Checkpoint, kind: str) -> None:
    shape = checkpoint.shape
    files = library.LlamaFileType
    writer.add_name(checkpoint.recipe.name)
    writer.add_file_type(files.ALL_F32 if kind == "F32" else files[f"MOSTLY_{kind}"])
    if kind.startswith("Q"):
        writer.add_quantization_version(library.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    if shape.vocabulary == 256 and checkpoint.recipe.origin is None:
        _describe_bytes(writer, library)
    else:  # tokens are numbers; the tokenizer of a public model is not ours to translate
        writer.add_tokenizer_model("no_vocab")


def _describe_bytes(writer: GGUFWriter, library: ModuleType) -> None:
    """A vocabulary in which each byte of a text is the token of that number.

    llama.cpp writes a space as U+2581 before it looks tokens up.
    """
    kinds = library.TokenType
    tokens = [f"<0x{i:02X}>" for i in range(256)]
    types = [kinds.BYTE] * 256
    tokens[ord(" ")], types[ord(" ")] = "\u2581", kinds.NORMAL
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 256)
    writer.add_token_types(types)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_bool("tokenizer.ggml.add_space_prefix", False)


def _stretch(shape: Shape) -> Array | None:
    """What llama.cpp divides the speed of each rotary pair by, or None where all are plain."""
    if shape.rope_scaling is None:
        return None
    plain = speeds(replace(shape, rope_scaling=None))
    return (plain / speeds(shape)).astype("<f4")


def _library() -> ModuleType:
    try:
        import gguf  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise BadInput(
            "this needs the gguf package: pip install gguf, or pip install 'edgewise[gguf]'"
        ) from None
    library: ModuleType = gguf
    return library
