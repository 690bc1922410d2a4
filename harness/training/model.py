"""Checkpoint <-> the stack of blocks as one PyTorch module.

Sizes: b sequences, n tokens. Block: x += mixer(rmsnorm(x)); x += ffn(rmsnorm(x)).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harness import candidates, plugins, weights
from harness.autograd import exported, linear, rms_norm
from harness.errors import BadCheckpoint
from harness.records import Checkpoint, Recipe, Shape

TIED_SCALE = 0.02  # of an embedding that is also the head, so that first logits are small


class Layer(Protocol):
    """What a mixer's or ffn's reference.py builds."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def export(self) -> dict[str, NDArray[np.float32]]: ...

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None: ...


class Block(nn.Module):
    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        mixer = plugins.pick(plugins.mixers(), shape.mixers[layer], "mixer")
        ffn = plugins.pick(plugins.ffns(), shape.ffn, "ffn")
        self.epsilon = shape.norm_epsilon
        self.mixer_norm = nn.Parameter(torch.ones(shape.width))
        self.mixer: nn.Module = plugins.half(mixer, "reference").build(shape, **mixer.options)
        self.ffn_norm = nn.Parameter(torch.ones(shape.width))
        self.ffn: nn.Module = plugins.half(ffn, "reference").build(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(rms_norm(x, self.mixer_norm, self.epsilon))
        return cast(Tensor, x + self.ffn(rms_norm(x, self.ffn_norm, self.epsilon)))

    def layers(self) -> dict[str, Layer]:
        """The two halves by their part of a canonical name."""
        return {"mixer": cast(Layer, self.mixer), "ffn": cast(Layer, self.ffn)}


class Model(nn.Module):
    """A stack with fresh weights from torch's current seed."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        scale = TIED_SCALE if shape.tied else 1.0
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * scale)
        self.blocks = nn.ModuleList([Block(shape, layer) for layer in range(shape.layers)])
        self.norm = nn.Parameter(torch.ones(shape.width))
        if not shape.tied:
            bound = shape.width**-0.5
            fresh = torch.empty(shape.vocabulary, shape.width).uniform_(-bound, bound)
            self.head = nn.Parameter(fresh)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (b,n) int64 -> logits (b,n,vocabulary)."""
        x = F.embedding(tokens, self.embedding)
        for ffn in self.ffns():
            if hasattr(ffn, "see"):
                cast(Any, ffn).see(tokens)
        for block in self.blocks:
            x = block(x)
        x = rms_norm(x, self.norm, self.shape.norm_epsilon)
        return linear(x, self.embedding if self.shape.tied else self.head)

    def export(self) -> dict[str, NDArray[np.float32]]:
        """Every tensor by canonical name, float32."""
        found = {"embedding": exported(self.embedding), "norm": exported(self.norm)}
        if not self.shape.tied:
            found["head"] = exported(self.head)
        for i, block in enumerate(self._blocks()):
            found[f"layers.{i}.mixer_norm"] = exported(block.mixer_norm)
            found[f"layers.{i}.ffn_norm"] = exported(block.ffn_norm)
            for half, layer in block.layers().items():
                tensors = layer.export().items()
                found |= {f"layers.{i}.{half}.{name}": array for name, array in tensors}
        return found

    @torch.no_grad()
    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of export. Raises BadCheckpoint at a tensor that is absent or misshapen."""
        _check(arrays, self.shape)
        self.embedding.copy_(torch.tensor(arrays["embedding"]))
        self.norm.copy_(torch.tensor(arrays["norm"]))
        if not self.shape.tied:
            self.head.copy_(torch.tensor(arrays["head"]))
        for i, block in enumerate(self._blocks()):
            block.mixer_norm.copy_(torch.tensor(arrays[f"layers.{i}.mixer_norm"]))
            block.ffn_norm.copy_(torch.tensor(arrays[f"layers.{i}.ffn_norm"]))
            for half, layer in block.layers().items():
                at = f"layers.{i}.{half}."
                layer.load({k.removeprefix(at): a for k, a in arrays.items() if k.startswith(at)})

    def ffns(self) -> list[nn.Module]:
        return [block.ffn for block in self._blocks()]

    def _blocks(self) -> list[Block]:
        return [cast(Block, block) for block in self.blocks]


def to_checkpoint(model: Model, recipe: Recipe, provenance: Mapping[str, Any]) -> Checkpoint:
    """The model's weights in float32 with the recipe that made them."""
    return Checkpoint(
        recipe=recipe, shape=model.shape, arrays=model.export(), provenance=provenance
    )


def from_checkpoint(checkpoint: Checkpoint) -> Model:
    """A model of the weights the checkpoint stands for, packed tensors unpacked to float32."""
    with torch.random.fork_rng(devices=[]):
        model = Model(checkpoint.shape)
    model.load(weights.unpacked(checkpoint))
    return model.eval()


def _check(arrays: Mapping[str, NDArray[Any]], shape: Shape) -> None:
    for name, tensor in candidates.tensors(shape).items():
        if name not in arrays:
            raise BadCheckpoint(f"the weights lack tensor {name!r} of shape {tensor.shape}")
        if arrays[name].shape != tensor.shape:
            found = arrays[name].shape
            raise BadCheckpoint(f"tensor {name!r} has shape {found}, expected {tensor.shape}")
