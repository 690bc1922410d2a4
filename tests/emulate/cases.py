"""Inputs, and what PyTorch makes of them here -> files that a process without PyTorch can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from harness import checkpoint as checkpoints
from harness import plugins
from harness.training.model import from_checkpoint
from tests import models
from tests.contract import settled

SIZES = (1, 7, 33, 64)
TOKENS = 20
SEEDS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to try; its files are NAME.json, NAME.npz and, of an engine, NAME.safetensors."""

    name: str
    kind: str  # kernel or engine
    digest: str  # of all that goes in, so that a result can be told from an older one's


def write(folder: Path) -> list[Case]:
    """All cases: every kernel, then every format with every ffn over a layer of each mixer."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*_kernels(folder), *_engines(folder)]


def _kernels(folder: Path) -> Iterator[Case]:
    for name, kernel in plugins.kernel_specs().items():
        arrays, runs = {}, []
        sizes = [dict(kernel.example), *(settled(kernel, value) for value in SIZES)]
        for i, (size, seed) in enumerate((size, seed) for size in sizes for seed in range(SEEDS)):
            given = kernel.inputs(size, np.random.default_rng(seed))
            right = kernel.reference(size, *(array.copy() for array in given))
            arrays |= {f"{i}.in.{j}": array for j, array in enumerate(given)}
            arrays |= {f"{i}.out.{j}": array for j, array in enumerate(right)}
            runs.append({"sizes": size, "inputs": len(given), "outputs": len(right)})
        yield _save(folder, name, "kernel", arrays, {"runs": runs})


def _engines(folder: Path) -> Iterator[Case]:
    for form in sorted(plugins.formats()):
        for ffn in sorted(plugins.ffns()):
            name = f"{form}-{ffn}"
            shape = models.shape(tuple(sorted(plugins.mixers())), ffn)
            checkpoint = models.checkpoint(shape, form)
            tokens = np.random.default_rng(0).integers(0, shape.vocabulary, TOKENS)
            with torch.no_grad():
                logits = from_checkpoint(checkpoint)(torch.from_numpy(tokens)[None])[0].numpy()
            checkpoints.save(checkpoint, folder / f"{name}.safetensors")
            arrays = {"tokens": tokens, "logits": logits}
            facts = {"rtol": plugins.formats()[form].rtol, "mixers": shape.mixers}
            yield _save(folder, name, "engine", arrays, facts)


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
