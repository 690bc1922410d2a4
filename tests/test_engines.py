"""Engines other people use: the same weights give the same products and the same logits."""

from __future__ import annotations

import numpy as np
import pytest

from harness import candidates, plugins
from harness.engines.numba import linear as numba_linear
from harness.errors import BadInput
from harness.make import make

TORCH_FORMS = (
    "f32", "f32 onednn", "f16", "bf16", "bf16 onednn", "int8 dynamic", "int8 packed",
    "int4 packed",
)  # fmt: skip
ONNX_FORMS = ("f32", "f16", "int8 dynamic", "int8 g128", "int8 g32", "int4 g32")
ALLOWED = {"f32": 1e-5, "f16": 5e-3, "bf16": 2e-2, "int8": 4e-2, "int4": 0.25}


@pytest.fixture(scope="module")
def matrix():
    """Weights (m,k), a vector (k,), their product in float64."""
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal((96, 256)) / 16).astype(np.float32)
    x = rng.standard_normal(256).astype(np.float32)
    return weights, x, weights.astype(np.float64) @ x


def error(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("form", ["f32", "f16", "bf16", "int8", "int8g32", "int4"])
def test_our_linear_is_the_product_on_any_number_of_threads(matrix, form, threads):
    if form not in plugins.formats():
        pytest.skip("no such format")
    weights, x, want = matrix
    linears = numba_linear.open_linears(form, weights, 5, threads)
    try:
        linears.x[:] = x
        for _ in range(3):
            linears.y[:] = np.nan
            assert error(linears.lap(), want) < ALLOWED[form.removesuffix("g32")]
    finally:
        numba_linear.close(linears)


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_every_linear_of_pytorch_is_the_product(matrix, form):
    torch_linear = pytest.importorskip("harness.engines.torch.linear", exc_type=ImportError)
    weights, x, want = matrix
    lap = torch_linear.lap(form, torch_linear.twin(form, weights, 2), x)
    assert error(lap(), want) < ALLOWED[form.split()[0]]


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_every_linear_of_onnxruntime_is_the_product(matrix, form):
    onnx_linear = pytest.importorskip("harness.engines.onnxruntime.linear", exc_type=ImportError)
    weights, x, want = matrix
    # the copies differ in two weights of one row, so that none is taken for another
    for count, rows in ((1, slice(None)), (3, slice(2, None))):
        lap = onnx_linear.lap(form, weights, count, x, 1)
        assert error(lap()[rows], want[rows]) < ALLOWED[form.split()[0]]


# of bits per byte: what rounding weights and activations in another way costs a small model
BITS = {"f32": 1e-4, "f16": 1e-3, "bf16": 5e-3, "int8": 1e-2, "int4": 5e-2}


def bits_per_byte(opened, text):
    """Of all bytes but the first, fed one prompt, then byte by byte."""
    rows = [opened.feed(text[:9])]
    rows += [np.array(opened.step(token)) for token in text[9:-1]]
    logits = np.array(rows, np.float64)
    logits -= logits.max(-1, keepdims=True)
    chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -chances[np.arange(len(rows)), text[9:]].mean() / np.log(2)


@pytest.fixture(scope="module")
def trained():
    """A small trained Transformer, and text it has not seen."""
    checkpoint = make(candidates.parse("attention:nano"))
    corpus = plugins.corpora()["pydocs"].load()
    return checkpoint, [int(x) for x in corpus.validation[5000:5160]]


FORMS = [
    (name, form)
    for name in ("torch", "onnxruntime")
    for form in plugins.engines()[name].forms
    if not form.endswith("compiled")
]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_peer_scores_as_our_engine_does(trained, name, form):
    engine = plugins.engines()[name]
    for package in engine.packages:
        pytest.importorskip(package)
    checkpoint, text = trained
    ours = plugins.engines()["numba"].open(checkpoint, len(text), 1, "")
    theirs = engine.open(checkpoint, len(text), 1, form)
    want = bits_per_byte(ours, text)
    for _ in range(2):  # the second time from a context that was forgotten
        theirs.reset()
        got = bits_per_byte(theirs, text)
        assert abs(got / want - 1) < BITS[form.split()[0]]
    ours.close()
    theirs.close()


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_a_peer_refuses_what_is_no_transformer(name):
    engine = plugins.engines()[name]
    for package in engine.packages:
        pytest.importorskip(package)
    with pytest.raises(BadInput, match="only attention"):
        engine.open(make(candidates.parse("mcsd:nano")), 8, 1, "f32")


@pytest.mark.parametrize("name", ["numba", "torch", "onnxruntime"])
def test_an_engine_says_what_it_is(name):
    engine = plugins.engines()[name]
    for package in engine.packages:
        pytest.importorskip(package)
    assert len(engine.about().splitlines()) == 1
    assert any(c.isdigit() for c in engine.about())
