"""Small checkpoints of random weights, different in every layer, for tests of whole stacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.candidates import tensors
from harness.make import pack
from harness.records import Checkpoint, Recipe, Shape


def shape(mixers=("attention", "attention"), ffn="dense", **changes) -> Shape:
    """Grouped queries, an odd vocabulary, an ffn of three groups."""
    settings = dict(
        vocabulary=101, width=64, layers=len(mixers), mixers=tuple(mixers), ffn=ffn, hidden=96,
        heads=4, kv_heads=2, head_width=16, channels=4, context=32, group=32, chosen=2,
    )  # fmt: skip
    return Shape(**{**settings, **changes})


def checkpoint(wanted: Shape, form: str = "f32", seed: int = 0) -> Checkpoint:
    """Scores of selectors stay away from zero, so that rounding changes no choice."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, tensor in tensors(wanted).items():
        values = rng.standard_normal(tensor.shape)
        if "norm" in name or tensor.name == "gain":
            values = 1 + 0.1 * values
        elif tensor.name == "slopes":
            values = rng.uniform(0.01, 0.5, tensor.shape)
        elif tensor.name == "slope":
            values = rng.uniform(0.3, 0.95, tensor.shape)
        elif tensor.name == "decay":
            values = rng.uniform(0.9, 0.995, tensor.shape)
        elif tensor.name == "selector_bias":
            values = np.where(np.arange(values.size) % 2, -1.0, 1.0)
        elif tensor.name == "selector_out":
            values *= 0.02
        elif tensor.name == "threshold":
            values = np.full(tensor.shape, 0.9)
        else:
            values *= tensor.shape[-1] ** -0.5
        arrays[name] = values.astype(np.float32)
    made = Checkpoint(recipe=Recipe(name="test:tiny", shape=wanted), shape=wanted, arrays=arrays)
    return made if form == "f32" else pack(made, form)


def without(made: Checkpoint, *names: str) -> Checkpoint:
    return replace(made, arrays={n: a for n, a in made.arrays.items() if n not in names})
