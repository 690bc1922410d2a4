"""Kernels and whole candidates against PyTorch. Nothing is timed before this passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness import plugins
from harness.candidates import parameters, tensors
from harness.engines.numba import session as engine
from harness.errors import Mismatch
from harness.records import Array, Checkpoint
from kernels import spec
from kernels.spec import Kernel, Sizes

DEPTH_FACTOR = 5.0  # a stack hands the error of one product on, through every layer
CACHED_RTOL = {"f32": 0.0, "f16": 2.0**-11, "int8": 2e-2}  # of keys and values in a cache
TOKENS = 96  # of held-out text that a candidate is checked on
LARGE = 400_000_000  # parameters that PyTorch holds in float32 beside the engine


def verify(kernel: Kernel, sizes: Sizes, seed: int = 0) -> float:
    """Largest |run - reference| / max(1, max|reference|) over outputs and new state.

    One random input. Outputs start as NaN, so an element the kernel forgets to write is a
    mismatch too. Raises Mismatch above kernel.rtol.
    """
    arrays = kernel.inputs(sizes, np.random.default_rng(seed))
    expected = kernel.reference(sizes, *(a.copy() for a in arrays))
    return compare(kernel, sizes, arrays, expected)


def compare(
    kernel: Kernel, sizes: Sizes, arrays: Sequence[Array], expected: Sequence[Array]
) -> float:
    """As `verify`, where the inputs and what the reference makes of them are known."""
    outputs = spec.call(kernel, sizes, *arrays)
    state = [
        array
        for argument, array in zip(kernel.of("input", "state"), arrays, strict=True)
        if argument.role == "state"
    ]
    worst = 0.0
    for found, right in zip((*outputs, *state), expected, strict=True):
        scale = max(1.0, float(np.max(np.abs(right), initial=0.0)))
        error = float(np.max(np.abs(found - right), initial=0.0)) / scale
        if not error <= kernel.rtol:  # also catches NaN
            raise Mismatch(
                f"kernel {kernel.name} at {dict(sizes)}: error {error:.2e}, "
                f"allowed {kernel.rtol:.0e}"
            )
        worst = max(worst, error)
    return worst


def agree(checkpoint: Checkpoint) -> float:
    """Largest distance of the engine's logits from PyTorch's, of their largest value.

    On held-out text, after each token; PyTorch multiplies by the unpacked weights in float32, so a
    format that rounds activations is allowed its `rtol`, and attention the rounding of its cache.
    Of a large model, its first layers.
    Raises Mismatch.
    """
    import torch  # noqa: PLC0415

    from harness.training.model import from_checkpoint  # noqa: PLC0415

    corpus = plugins.pick(plugins.corpora(), checkpoint.recipe.corpus, "corpus").load()
    checkpoint = _shortened(checkpoint)
    text = corpus.validation[:TOKENS].astype(np.int64) % checkpoint.shape.vocabulary
    with torch.no_grad():
        right = from_checkpoint(checkpoint)(torch.from_numpy(text)[None])[0].numpy()
    with engine.open_session(checkpoint, room=TOKENS) as session:
        found = engine.feed(session, text, every=True)
    forms = {"f32", *checkpoint.formats.values()}
    rtol = max(plugins.pick(plugins.formats(), form, "format").rtol for form in forms)
    if any(plugins.mixers()[name].folder == "attention" for name in checkpoint.shape.mixers):
        rtol = max(rtol, CACHED_RTOL[checkpoint.shape.cache])
    error = float(np.abs(found - right).max() / np.abs(right).max())
    allowed = DEPTH_FACTOR * rtol
    if not error <= allowed:
        raise Mismatch(
            f"{checkpoint.recipe.name}: the engine's logits differ from PyTorch's by {error:.1e} "
            f"of the largest, allowed {allowed:.0e}"
        )
    return error


def _shortened(checkpoint: Checkpoint) -> Checkpoint:
    """As many of its first layers as stay below LARGE, at least one, between the same ends."""
    shape = checkpoint.shape
    single = replace(shape, layers=1, mixers=shape.mixers[:1])
    whole, least = parameters(shape), parameters(single)
    if whole <= LARGE or shape.layers == 1:
        return checkpoint
    layer = (whole - least) // (shape.layers - 1)
    count = min(shape.layers, 1 + max(0, LARGE - least) // layer)
    kept = tensors(replace(shape, layers=count, mixers=shape.mixers[:count]))
    return replace(
        checkpoint,
        shape=replace(shape, layers=count, mixers=shape.mixers[:count]),
        arrays={
            name: checkpoint.arrays[name]
            for name in checkpoint.arrays
            if name in kept or name.rpartition(".")[0] in kept
        },
        formats={name: form for name, form in checkpoint.formats.items() if name in kept},
    )
