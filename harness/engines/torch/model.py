"""The Llama shape in PyTorch with a key-value cache, made to decode as fast as PyTorch can.

Sizes: n tokens, h query heads, g key-value heads, w features of a head. One product makes q, k and
v, another gate and up. The cache is float32 in every form: attention of one query is several times
faster on it than on half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness import weights
from harness.engines.torch.linear import TYPES, Linear, linear, use
from harness.errors import BadInput
from harness.mixers.attention.spec import speeds
from harness.records import Array, Checkpoint, Shape

COMPILED = " compiled"  # ends the name of a form whose step goes through torch.compile


class Model:
    """A checkpoint of attention and dense layers, ready to decode; an `Opened`."""

    def __init__(self, checkpoint: Checkpoint, room: int, threads: int, form: str) -> None:
        shape = checkpoint.shape
        if {*shape.mixers, shape.ffn} != {"attention", "dense"}:
            raise BadInput(f"{checkpoint.recipe.name}: only attention with dense ffns runs here")
        use(threads)
        self.shape, self.room, self.depth = shape, room, 0
        self.compiled = form.endswith(COMPILED)
        form = form.removesuffix(COMPILED)
        self.type = TYPES[form]
        arrays = weights.unpacked(checkpoint)
        self.embedding = torch.from_numpy(arrays["embedding"]).to(self.type)
        self.head = linear(form, arrays["embedding" if shape.tied else "head"])
        self.norm = torch.from_numpy(arrays["norm"]).to(self.type)
        self.layers = [Layer(shape, form, arrays, i, room) for i in range(shape.layers)]
        angles = np.arange(room)[:, None] * speeds(shape)
        self.cosines = torch.from_numpy(np.cos(angles)).float()
        self.sines = torch.from_numpy(np.sin(angles)).float()
        self.places = torch.arange(room)
        self._step: Callable[[Tensor, Tensor], Tensor] = self._masked
        if self.compiled:
            self._step = torch.compile(self._masked, fullgraph=True, dynamic=False)

    def feed(self, tokens: Sequence[int]) -> Array:
        given = torch.tensor(list(tokens))
        with torch.inference_mode():
            places = self.places[self.depth : self.depth + len(given)]
            reach = self.depth + len(given)
            mask = self.places[:reach] <= places[:, None]
            logits = self._forward(given, places, reach, mask)
        self.depth = reach
        return _array(logits)

    def step(self, token: int) -> Array:
        given, places = torch.tensor([token]), self.places[self.depth : self.depth + 1]
        with torch.inference_mode():
            if self.compiled:
                logits = self._step(given, places)
            else:
                logits = self._forward(given, places, self.depth + 1, None)
        self.depth += 1
        return _array(logits)

    def reset(self) -> None:
        self.depth = 0

    def close(self) -> None:
        self.layers.clear()

    def _masked(self, tokens: Tensor, places: Tensor) -> Tensor:
        """A step whose shapes do not depend on the depth, so that it is compiled once."""
        return self._forward(tokens, places, self.room, self.places <= places[:, None])

    def _forward(self, tokens: Tensor, places: Tensor, reach: int, mask: Tensor | None) -> Tensor:
        x = functional.embedding(tokens, self.embedding)
        turn = self.cosines[places], self.sines[places]
        for layer in self.layers:
            x = layer.forward(x, places, turn, reach, mask)
        last = functional.rms_norm(x[-1:], (self.shape.width,), self.norm, self.shape.norm_epsilon)
        return self.head(last)[0]


class Layer:
    """One block with its part of the cache, keys and values (g, room, w) float32."""

    def __init__(
        self, shape: Shape, form: str, arrays: Mapping[str, Array], index: int, room: int
    ) -> None:
        at = f"layers.{index}"

        def joined(part: str, *names: str) -> Linear:
            return linear(form, np.concatenate([arrays[f"{at}.{part}.{name}"] for name in names]))

        self.shape = shape
        self.mixer_norm = torch.from_numpy(arrays[f"{at}.mixer_norm"]).to(TYPES[form])
        self.ffn_norm = torch.from_numpy(arrays[f"{at}.ffn_norm"]).to(TYPES[form])
        self.qkv, self.o = joined("mixer", "q", "k", "v"), joined("mixer", "o")
        self.gate_up, self.down = joined("ffn", "gate", "up"), joined("ffn", "down")
        self.keys = torch.zeros(shape.kv_heads, room, shape.head_width)
        self.values = torch.zeros(shape.kv_heads, room, shape.head_width)

    def forward(
        self, x: Tensor, places: Tensor, turn: tuple[Tensor, Tensor], reach: int,
        mask: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """x (n,width) at those places of the context -> (n,width)."""
        shape, wide = self.shape, (self.shape.width,)
        h, g, w = shape.heads, shape.kv_heads, shape.head_width
        normed = functional.rms_norm(x, wide, self.mixer_norm, shape.norm_epsilon)
        heads = self.qkv(normed).view(-1, h + 2 * g, w).transpose(0, 1).float()
        turned = _rotate(heads[: h + g], *turn)
        self.keys[:, places] = turned[h:]
        self.values[:, places] = heads[h + g :]
        mixed = functional.scaled_dot_product_attention(
            turned[None, :h], self.keys[None, :, :reach], self.values[None, :, :reach],
            attn_mask=mask, enable_gqa=h != g,
        )  # fmt: skip
        x = x + self.o(mixed[0].transpose(0, 1).reshape(-1, h * w).to(x.dtype))
        normed = functional.rms_norm(x, wide, self.ffn_norm, shape.norm_epsilon)
        gate, up = self.gate_up(normed).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x (heads,n,w) with features i and i + w/2 turned; cosines, sines (n,w/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosines - b * sines, b * cosines + a * sines], dim=-1)


def _array(logits: Tensor) -> Array:
    values: Array = logits.float().numpy()
    return values
