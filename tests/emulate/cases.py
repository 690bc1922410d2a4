"""Inputs, and what PyTorch makes of them here -> files that a process without PyTorch can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from harness import checkpoint as checkpoints
from harness import plugins
from harness.steps import cache_of
from harness.training.model import from_checkpoint
from tests import models
from tests.contract import settled

SIZES = (1, 7, 33, 64)
TOKENS = 20
SEEDS = 2
CACHE_RTOL = {"kvf16": 1e-3, "kvint8": 2e-2}  # what rounding keys and values costs a logit


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to try; its files are NAME.json, NAME.npz and, of an engine, NAME.safetensors."""

    name: str
    kind: str  # kernel or engine
    digest: str  # of all that goes in, so that a result can be told from an older one's


def names() -> list[str]:
    """Every kernel, a format of each with every ffn over a layer of each mixer, smaller caches."""
    formats = plugins.formats()
    forms = {formats[form].kernel: form for form in sorted(formats, reverse=True)}
    stacks = [f"{form}-{ffn}" for ffn in sorted(plugins.ffns()) for form in sorted(forms.values())]
    return [*plugins.kernel_specs(), *stacks, *(f"f32-dense-{cache}" for cache in CACHE_RTOL)]


def write(folder: Path, chosen: Sequence[str]) -> list[Case]:
    """The files of these cases."""
    folder.mkdir(parents=True, exist_ok=True)
    kernels = plugins.kernel_specs()
    return [_kernel(folder, n) if n in kernels else engine(folder, n) for n in chosen]


def _kernel(folder: Path, name: str) -> Case:
    kernel, arrays, runs = plugins.kernel_specs()[name], {}, []
    sizes = [dict(kernel.example), *(settled(kernel, value) for value in SIZES)]
    for i, (size, seed) in enumerate(product(sizes, range(SEEDS))):
        given = kernel.inputs(size, np.random.default_rng(seed))
        right = kernel.reference(size, *(array.copy() for array in given))
        arrays |= {f"{i}.in.{j}": array for j, array in enumerate(given)}
        arrays |= {f"{i}.out.{j}": array for j, array in enumerate(right)}
        runs.append({"sizes": size, "inputs": len(given), "outputs": len(right)})
    return _save(folder, name, "kernel", arrays, {"runs": runs})


def engine(folder: Path, name: str, mixers: Sequence[str] = ()) -> Case:
    """FORMAT-FFN[-CACHE]: a stack of these mixers, or of a layer of each; attention for a cache."""
    form, ffn, *caches = name.split("-")
    chosen = mixers or (("attention",) if caches else tuple(sorted(plugins.mixers())))
    cache = cache_of((form, *caches))
    shape = replace(models.shape(tuple(chosen), ffn), cache=cache)
    checkpoint = models.checkpoint(shape, form)
    tokens = np.random.default_rng(0).integers(0, shape.vocabulary, TOKENS)
    with torch.no_grad():
        logits = from_checkpoint(checkpoint)(torch.from_numpy(tokens)[None])[0].numpy()
    checkpoints.save(checkpoint, folder / f"{name}.safetensors")
    arrays = {"tokens": tokens, "logits": logits}
    rtol = max(plugins.formats()[form].rtol, CACHE_RTOL.get(f"kv{cache}", 0.0))
    return _save(folder, name, "engine", arrays, {"rtol": rtol, "mixers": shape.mixers})


def _save(
    folder: Path, name: str, kind: str, arrays: dict[str, np.ndarray], facts: dict[str, object]
) -> Case:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key, array in arrays.items():
        digest.update(f"{key} {array.dtype} {array.shape}".encode() + array.tobytes())
    case = Case(name, kind, digest.hexdigest()[:16])
    np.savez(folder / f"{name}.npz", **arrays)
    (folder / f"{name}.json").write_text(json.dumps({**asdict(case), **facts}), "utf-8")
    return case
