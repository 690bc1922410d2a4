"""The Llama shape as an ONNX graph with a key-value cache, of ONNX Runtime's own fused operators.

Sizes: n tokens, h query heads, g key-value heads, w features of a head. One product makes q, k and
v, another gate and up; GroupQueryAttention turns positions and appends to the cache in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from harness import weights
from harness.engines.onnxruntime.linear import Graph, product, rounded, session
from harness.errors import BadInput
from harness.mixers.attention.spec import speeds
from harness.records import Array, Checkpoint, Shape

NORM, ADD_NORM = "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"


class Model:
    """A checkpoint of attention and dense layers, ready to decode; an `Opened`."""

    def __init__(self, checkpoint: Checkpoint, room: int, threads: int, form: str) -> None:
        shape = checkpoint.shape
        if {*shape.mixers, shape.ffn} != {"attention", "dense"}:
            raise BadInput(f"{checkpoint.recipe.name}: only attention with dense ffns runs here")
        self.shape, self.room, self.depth = shape, room, 0
        self.session = _session(shape, weights.unpacked(checkpoint), room, threads, form)
        self.binding = self.session.io_binding()
        self.logits = np.zeros((1, 1, shape.vocabulary), np.float32)
        size = (1, shape.kv_heads, room, shape.head_width)
        self.caches = {
            f"{part}{i}": onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(size, np.float32))
            for i in range(shape.layers)
            for part in ("key", "value")
        }
        for name, cache in self.caches.items():
            # Input and output are one array, which the operator takes for leave to append to it.
            self.binding.bind_ortvalue_input(name, cache)
            self.binding.bind_ortvalue_output(f"{name}_after", cache)
        self.binding.bind_output(
            "logits", "cpu", 0, np.float32, self.logits.shape, self.logits.ctypes.data
        )

    def feed(self, tokens: Sequence[int]) -> Array:
        """Token by token behind the first prompt, since a cache is appended to one at a time."""
        given = np.array([list(tokens)], np.int64)
        if self.depth == 0:
            return self._run(given).copy()
        for token in given[0]:
            logits = self._run(token.reshape(1, 1))
        return logits.copy()

    def step(self, token: int) -> Array:
        return self._run(np.array([[token]], np.int64))

    def reset(self) -> None:
        self.depth = 0

    def close(self) -> None:
        self.caches.clear()
        del self.binding, self.session

    def _run(self, tokens: Array) -> Array:
        self.depth += tokens.size
        self.binding.bind_cpu_input("tokens", tokens)
        self.binding.bind_cpu_input("last", np.array([self.depth - 1], np.int32))
        self.binding.bind_cpu_input("total", np.array(self.depth, np.int32))
        self.session.run_with_iobinding(self.binding)
        logits: Array = self.logits[0, 0]
        return logits


def _session(
    shape: Shape, arrays: Mapping[str, Array], room: int, threads: int, form: str
) -> onnxruntime.InferenceSession:
    graph = Graph()
    head = arrays["embedding" if shape.tied else "head"]
    graph.keep("embedding", arrays["embedding"])
    angles = np.arange(room)[:, None] * speeds(shape)
    graph.keep("cosines", np.cos(angles).astype(np.float32))
    graph.keep("sines", np.sin(angles).astype(np.float32))
    graph.node("Gather", ["embedding", "tokens"], "x0")
    gain = graph.keep("gain0", arrays["layers.0.mixer_norm"])
    graph.node(NORM, ["x0", gain], "normed0", axis=-1, epsilon=shape.norm_epsilon)
    for i in range(shape.layers):
        _layer(graph, shape, form, arrays, i)
    graph.keep("end", np.array([-1], np.int64))
    graph.node("Gather", [f"normed{shape.layers}", "end"], "final", axis=1)
    product(graph, form, rounded(form, head), "final", "logits")
    return session(graph, *_ends(shape, room), threads)


def _layer(graph: Graph, shape: Shape, form: str, arrays: Mapping[str, Array], i: int) -> None:
    """One block from x{i}, normed{i} to x{i+1}, normed{i+1}."""
    at = f"layers.{i}"
    after = f"layers.{i + 1}.mixer_norm" if i + 1 < shape.layers else "norm"

    def multiply(part: str, x: str, y: str, *names: str) -> str:
        joined = np.concatenate([arrays[f"{at}.{part}.{name}"] for name in names])
        return product(graph, form, rounded(form, joined), x, y)

    def add_norm(x: str, change: str, gain: Array, normed: str, total: str) -> None:
        names = [x, change, graph.keep(f"{normed}.gain", gain)]
        graph.many(ADD_NORM, names, [normed, "", "", total], epsilon=shape.norm_epsilon)

    qkv = multiply("mixer", f"normed{i}", f"qkv{i}", "q", "k", "v")
    cache = [f"key{i}", f"value{i}", "last", "total", "cosines", "sines"]
    graph.many(
        "GroupQueryAttention",
        [qkv, "", "", *cache],
        [f"mixed{i}", f"key{i}_after", f"value{i}_after"],
        num_heads=shape.heads,
        kv_num_heads=shape.kv_heads,
        do_rotary=1,
    )
    o = multiply("mixer", f"mixed{i}", f"o{i}", "o")
    add_norm(f"x{i}", o, arrays[f"{at}.ffn_norm"], f"between{i}", f"middle{i}")
    both = multiply("ffn", f"between{i}", f"both{i}", "gate", "up")
    graph.many("Split", [both], [f"gate{i}", f"up{i}"], axis=-1, num_outputs=2)
    graph.node("QuickGelu", [f"gate{i}"], f"silu{i}", alpha=1.0)  # x sigmoid(x)
    graph.node("Mul", [f"silu{i}", f"up{i}"], f"act{i}")
    down = multiply("ffn", f"act{i}", f"down{i}", "down")
    add_norm(f"middle{i}", down, arrays[after], f"normed{i + 1}", f"x{i + 1}")


def _ends(shape: Shape, room: int) -> tuple[list[object], list[object]]:
    """The graph's inputs and outputs."""
    info, real = helper.make_tensor_value_info, TensorProto.FLOAT
    size = [1, shape.kv_heads, room, shape.head_width]
    names = [f"{part}{i}" for i in range(shape.layers) for part in ("key", "value")]
    inputs = [info("tokens", TensorProto.INT64, [1, "n"]), info("last", TensorProto.INT32, [1])]
    inputs += [info("total", TensorProto.INT32, []), *(info(name, real, size) for name in names)]
    outputs = [info("logits", real, [1, 1, shape.vocabulary])]
    return inputs, outputs + [info(f"{name}_after", real, size) for name in names]
