"""A weight matrix -> an ONNX graph of ONNX Runtime's operators that multiplies by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from harness.records import Array

GROUP = 32
OWN = "com.microsoft"  # the domain of ONNX Runtime's own operators
OPSET, OWN_OPSET, IR = 21, 1, 10
OWN_KINDS = (
    "MatMulNBits", "DynamicQuantizeMatMul", "GroupQueryAttention",
    "SkipSimplifiedLayerNormalization", "QuickGelu",
)  # fmt: skip
INT8_ARITHMETIC = 4  # MatMulNBits' accuracy_level: round activations to int8, multiply integers

# form -> ours with weights of as many bits
LIKE: Mapping[str, str] = {
    "f32": "f32", "f16": "f16", "int8 dynamic": "int8", "int8 g128": "int8", "int8 g32": "int8g32",
    "int4 g32": "int4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A matrix (m,k) as an operator's constant inputs."""

    shape: tuple[int, ...]
    arrays: tuple[Array, ...]


@dataclass(slots=True)
class Graph:
    """Nodes and weights that grow; `use` adds a product."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, kind: str, inputs: Sequence[str], output: str, **settings: object) -> str:
        self.many(kind, inputs, [output], **settings)
        return output

    def many(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **settings: object
    ) -> None:
        domain = OWN if kind in OWN_KINDS else ""
        made = helper.make_node(kind, list(inputs), list(outputs), domain=domain, **settings)
        self.nodes.append(made)

    def keep(self, name: str, values: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def product(graph: Graph, form: str, stored: Stored, x: str, y: str) -> str:
    """Add y = x W^T for weights (m,k) as `rounded` stores them."""
    names = [graph.keep(f"{y}.{i}", array) for i, array in enumerate(stored.arrays)]
    if form in ("f32", "f16"):
        return graph.node("MatMul", [x, *names], y)
    if form == "int8 dynamic":
        return graph.node("DynamicQuantizeMatMul", [x, *names], y)
    m, k = stored.shape
    bits, group = _grouping(form)
    settings = {"K": k, "N": m, "bits": bits, "block_size": group}
    return graph.node("MatMulNBits", [x, *names], y, accuracy_level=INT8_ARITHMETIC, **settings)


def rounded(form: str, weights: Array) -> Stored:
    """Weights (m,k) float32 as the form's operator takes them."""
    if form in ("f32", "f16"):
        kind = np.float32 if form == "f32" else np.float16
        return Stored(weights.shape, (np.ascontiguousarray(weights.T.astype(kind)),))
    if form == "int8 dynamic":
        scale = np.abs(weights).max(1) / 127
        levels = np.rint(weights / np.where(scale > 0, scale, 1.0)[:, None]).astype(np.int8)
        return Stored(weights.shape, (np.ascontiguousarray(levels.T), scale.astype(np.float32)))
    return Stored(weights.shape, grouped(weights, *_grouping(form)))


def _grouping(form: str) -> tuple[int, int]:
    """ "int4 g32" -> bits, columns of a group."""
    return (4 if form.startswith("int4") else 8), int(form.rpartition("g")[2])


def grouped(weights: Array, bits: int, group: int) -> tuple[Array, Array]:
    """Weights (m,k) rounded in groups of columns -> levels, scales (m, k/group).

    Levels (m, k/group, bytes) are unsigned with the zero in the middle; two int4 share a byte, the
    even one low.
    """
    m, k = weights.shape
    middle = 1 << (bits - 1)
    columns = -(-k // group)
    padded = np.zeros((m, columns * group), np.float32)
    padded[:, :k] = weights
    blocks = padded.reshape(m, columns, group)
    scales = np.abs(blocks).max(-1) / (middle - 1)
    safe = np.where(scales > 0, scales, 1.0)[..., None]
    levels: Array = (np.rint(blocks / safe) + middle).astype(np.uint8)
    if bits == 4:
        levels = levels[..., ::2] | (levels[..., 1::2] << 4)
    return levels, scales.astype(np.float32)


def session(
    graph: Graph,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    threads: int,
) -> onnxruntime.InferenceSession:
    """The graph ready to run on so many threads, with every optimisation there is."""
    made = helper.make_model(
        helper.make_graph(graph.nodes, "edgewise", list(inputs), list(outputs), graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(OWN, OWN_OPSET)],
        ir_version=IR,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def lap(form: str, weights: Array, count: int, x: Array, threads: int) -> Callable[[], Array]:
    """One run of a graph that multiplies x (k,) by so many copies of the weights, each in memory
    of its own; returns the last product (m,).
    """
    graph, kind = Graph(), np.float16 if form == "f16" else np.float32
    number = TensorProto.FLOAT16 if form == "f16" else TensorProto.FLOAT
    stored = rounded(form, weights)
    names = [product(graph, form, _varied(stored, i), "x", f"y{i}") for i in range(count)]
    m, k = weights.shape
    outputs = [helper.make_tensor_value_info(name, number, [1, m]) for name in names]
    ready = session(graph, [helper.make_tensor_value_info("x", number, [1, k])], outputs, threads)
    binding = ready.io_binding()
    binding.bind_cpu_input("x", np.ascontiguousarray(x[None].astype(kind)))
    found = [np.zeros((1, m), kind) for _ in names]
    for name, array in zip(names, found, strict=True):
        binding.bind_output(name, "cpu", 0, kind, [1, m], array.ctypes.data)

    def work() -> Array:
        ready.run_with_iobinding(binding)
        last: Array = found[-1][0]
        return last

    return work


def _varied(stored: Stored, i: int) -> Stored:
    """The same but for two numbers: equal constants would be kept once, and stay in the cache."""
    first = stored.arrays[0].copy()
    if first.dtype.kind == "f":
        step = 2 * float(np.finfo(first.dtype).eps)
        first.flat[:2] *= (1 + i % 32 * step, 1 + i // 32 * step)
    else:
        first.flat[:2] = i % 100, i // 100
    return Stored(stored.shape, (first, *stored.arrays[1:]))
