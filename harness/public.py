"""A public folder's recipe -> its checkpoint, tensor by tensor.

Without a format the arrays are read when they are asked for, so that a large model is in memory
once, where the engine lays it out; with one they are packed a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import candidates, packing, plugins
from harness.errors import BadCheckpoint
from harness.folders import shards
from harness.folders.shards import Stored
from harness.records import Array, Checkpoint, Origin, Recipe

ENDS = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
PARTS = {
    "mixer_norm": "input_layernorm",
    "mixer.q": "self_attn.q_proj",
    "mixer.k": "self_attn.k_proj",
    "mixer.v": "self_attn.v_proj",
    "mixer.o": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
DERIVED = "rotary_emb.inv_freq"  # a buffer that old files keep; it follows from config.json


@dataclass(frozen=True, slots=True)
class OnDisk(Mapping[str, Array]):
    """Canonical name -> the tensor as float32, read each time."""

    places: Mapping[str, Stored]

    def __getitem__(self, name: str) -> Array:
        return shards.rows(self.places[name], slice(None))

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def load(
    recipe: Recipe,
    origin: Origin,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Checkpoint:
    """The folder's weights in the recipe's format. Raises BadCheckpoint."""
    folder = Path(origin.folder)
    on_disk = OnDisk(_matched(recipe, shards.tensors(folder), folder))
    made = Checkpoint(
        recipe=recipe,
        shape=recipe.shape,
        arrays=on_disk,
        provenance={"folder": folder.name, "files": origin.files},
    )
    if not recipe.steps or recipe.steps[-1] == "f32":
        return made
    form = plugins.pick(plugins.formats(), recipe.steps[-1], "format")
    arrays: dict[str, Array] = {}
    wanted = candidates.tensors(recipe.shape)
    for done, (name, tensor) in enumerate(wanted.items()):
        progress(f"pack as {form.name}", done, len(wanted))
        if not tensor.packed:
            arrays[name] = on_disk[name]
            continue
        parts = packing.pack(form, tensor.shape, partial(shards.rows, on_disk.places[name]))
        arrays |= {f"{name}.{key}" if key else name: part for key, part in parts.items()}
    formats = {name: form.name for name, tensor in wanted.items() if tensor.packed}
    return Checkpoint(
        recipe=recipe,
        shape=recipe.shape,
        arrays=arrays,
        formats=formats,
        provenance=made.provenance,
    )


def _matched(recipe: Recipe, found: Mapping[str, Stored], folder: Path) -> dict[str, Stored]:
    """Canonical name -> its place. Raises BadCheckpoint at what is missing, misshapen or extra."""
    places: dict[str, Stored] = {}
    names = {name: _public(name) for name in candidates.tensors(recipe.shape)}
    for name, tensor in candidates.tensors(recipe.shape).items():
        stored = found.get(names[name])
        if stored is None:
            raise BadCheckpoint(f"{folder}: tensor {names[name]!r} is missing")
        if stored.shape != tensor.shape:
            raise BadCheckpoint(
                f"{folder}: tensor {names[name]!r} has shape {stored.shape}, "
                f"expected {tensor.shape} by config.json"
            )
        places[name] = stored
    known = {*names.values(), _public("head")}  # a tied head may be stored, and is not read
    extra = [n for n in found if n not in known and not n.endswith(DERIVED)]
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise BadCheckpoint(
            f"{folder}: tensor {extra[0]!r}{more} has no place in a model of the Llama shape"
        )
    return places


def _public(name: str) -> str:
    """A canonical name as LlamaForCausalLM has it."""
    if name in ENDS:
        return f"{ENDS[name]}.weight"
    _, layer, part = name.split(".", 2)
    return f"model.layers.{layer}.{PARTS[part]}.weight"
