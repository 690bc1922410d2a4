"""The contract of every weight format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import plugins
from harness.errors import BadInput
from harness.formats import int4, int8, sparse50
from harness.records import Array
from kernels import (
    matvec_bf16,
    matvec_f16,
    matvec_f32,
    matvec_int4,
    matvec_int8,
    matvec_int8g32,
    sparse_matvec,
    spec,
)

FORMATS = plugins.formats()
EVERY = [pytest.param(f, id=name) for name, f in FORMATS.items()]
SHAPES = [(1, 1), (7, 33), (33, 7), (16, 32), (64, 96), (3, 100)]
UNPACK_STREAM = {
    "f32": matvec_f32.unpack,
    "f16": matvec_f16.unpack,
    "bf16": matvec_bf16.unpack,
    "int8": matvec_int8.unpack,
    "int8g32": matvec_int8g32.unpack,
    "int4": matvec_int4.unpack,
    "sparse50": sparse_matvec.unpack,
}
MATVEC = {
    "f32": matvec_f32.SPEC,
    "f16": matvec_f16.SPEC,
    "bf16": matvec_bf16.SPEC,
    "int8": matvec_int8.SPEC,
    "int8g32": matvec_int8g32.SPEC,
    "int4": matvec_int4.SPEC,
    "sparse50": sparse_matvec.SPEC,
}


def matrix(rows: int, columns: int, seed: int = 0) -> Array:
    """Normal values; one row of zeros and one of large values where there is room."""
    values = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    if rows > 2:
        values[1], values[2] = 0, values[2] * 100
    return values


def there_and_back(form, weights):
    return form.unpack(form.pack(weights), weights.shape)


def product(form, weights, x):
    """W x by the format's kernel for one vector, on the stream the engine would read."""
    stream = form.layout(form.pack(weights), weights.shape)
    sizes = dict(zip("mk", weights.shape, strict=True))
    if form.name == "sparse50":
        sizes["z"] = sparse50.kept(*weights.shape)
    (y,) = spec.call(MATVEC[form.name], sizes, stream, x)
    return y


# ---- what comes back ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", EVERY)
def test_packing_again_what_was_unpacked_changes_nothing(form, shape):
    once = there_and_back(form, matrix(*shape))
    assert once.dtype == np.float32
    assert once.shape == shape
    np.testing.assert_array_equal(there_and_back(form, once), once)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_comes_back_bit_for_bit(shape):
    weights = matrix(*shape)
    np.testing.assert_array_equal(there_and_back(FORMATS["f32"], weights), weights)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 99), st.floats(1e-20, 1e20))
def test_int8_is_off_by_at_most_half_a_step_of_its_row(rows, columns, seed, size):
    weights = matrix(rows, columns, seed) * np.float32(size)
    step = np.abs(weights.astype(np.float64)).max(1, keepdims=True) / 127
    error = np.abs(there_and_back(int8.SPEC, weights) - weights.astype(np.float64))
    assert (error <= step * (0.5 + 1e-4)).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 99), st.floats(1e-3, 1e3))
def test_int4_is_off_by_at_most_a_step_of_its_group(rows, columns, seed, size):
    """Half a step, but a whole one for values opposite to the group's largest: 7 is the end."""
    weights = matrix(rows, columns, seed) * np.float32(size)
    back = there_and_back(int4.SPEC, weights)
    for start in range(0, columns, 32):
        group = weights[:, start : start + 32].astype(np.float64)
        step = np.abs(group).max(1, keepdims=True) / 8
        error = np.abs(back[:, start : start + 32] - group)
        assert (error <= step * (1 + 2e-3) + 1e-6).all()
        top = np.abs(group).argmax(1)[:, None]
        signed = np.take_along_axis(group, top, 1)
        inside = group * np.sign(signed) > -7 * step
        assert (error[inside] <= np.broadcast_to(step, error.shape)[inside] * 0.51 + 1e-6).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_sparse50_keeps_the_larger_half_as_it_was(shape):
    weights = matrix(*shape)
    back = there_and_back(sparse50.SPEC, weights)
    gone = back == 0
    np.testing.assert_array_equal(back[~gone], weights[~gone])
    assert gone.sum() >= weights.size // 2
    if gone.any() and not gone.all():
        assert np.abs(weights[gone]).max() <= np.abs(weights[~gone]).min()


@pytest.mark.parametrize("form", EVERY)
def test_zeros_stay_zeros(form):
    assert (there_and_back(form, np.zeros((5, 40), np.float32)) == 0).all()


@pytest.mark.parametrize("form", EVERY)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_or_kept(form, bad):
    weights = matrix(5, 40)
    weights[3, 33] = bad
    if form.name == "f32":
        np.testing.assert_array_equal(there_and_back(form, weights), weights)
    else:
        with pytest.raises(BadInput, match=form.name):
            form.pack(weights)


def test_int4_refuses_weights_whose_scale_float16_cannot_hold():
    with pytest.raises(BadInput, match=r"up to 5\.2e5"):
        int4.pack(np.full((1, 32), 1e6, np.float32))


# ---- the stream ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", EVERY)
def test_the_stream_holds_exactly_what_was_packed(form, shape):
    weights = matrix(*shape)
    stream = form.layout(form.pack(weights), shape)
    assert stream.dtype == np.uint8
    assert stream.shape == (form.layout_bytes(*shape),)
    np.testing.assert_array_equal(
        UNPACK_STREAM[form.name](stream, *shape), there_and_back(form, weights)
    )


@pytest.mark.parametrize("form", EVERY)
def test_a_format_says_how_many_bits_it_takes(form):
    rows, columns = 512, 1024
    bits = 8 * sum(a.nbytes for a in form.pack(matrix(rows, columns)).values()) / (rows * columns)
    assert bits == pytest.approx(form.bits, rel=0.01)
    assert 8 * form.layout_bytes(rows, columns) / (rows * columns) == pytest.approx(bits, rel=0.01)


@pytest.mark.parametrize("form", EVERY)
def test_a_cut_is_a_slice_of_the_whole(form):
    weights = matrix(48, 128)
    arrays, whole = form.pack(weights), there_and_back(form, weights)
    every = slice(None)
    for rows, columns in [
        (slice(0, 16), every), (slice(16, 48), every), (slice(5, 6), every),
        (every, slice(0, 32)), (every, slice(96, 128)), (slice(7, 20), slice(32, 96)),
    ]:  # fmt: skip
        wanted = whole[rows, columns]
        part = form.cut(arrays, rows, columns)
        np.testing.assert_array_equal(form.unpack(part, wanted.shape), wanted)
        stream = form.layout(part, wanted.shape)
        np.testing.assert_array_equal(UNPACK_STREAM[form.name](stream, *wanted.shape), wanted)


def test_int4_refuses_a_cut_inside_a_group():
    with pytest.raises(ValueError, match="column 16"):
        int4.cut(int4.pack(matrix(4, 64)), slice(None), slice(16, 48))


@pytest.mark.parametrize("form", EVERY)
def test_arrays_of_another_shape_make_no_stream(form):
    arrays = form.pack(matrix(20, 64))
    for shape in [(21, 64), (19, 64), (20, 63) if form.name == "int8" else (40, 64)]:
        with pytest.raises(ValueError, match=r"\(|reshape"):
            form.layout(arrays, shape)


@pytest.mark.parametrize(
    ("part", "change"),
    [("starts", lambda a: a[::-1]), ("starts", lambda a: a[:-1]), ("columns", lambda a: a[:-1]),
     ("columns", lambda a: a + np.uint16(50)), ("", lambda a: a[:-1])],
)  # fmt: skip
def test_sparse_arrays_that_would_reach_outside_make_no_stream(part, change):
    arrays = dict(sparse50.pack(matrix(20, 64)))
    arrays[part] = np.ascontiguousarray(change(arrays[part]))
    with pytest.raises(ValueError, match=r"fit together|outside"):
        sparse50.layout(arrays, (20, 64))


# ---- the product ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", EVERY)
def test_a_product_is_off_by_no_more_than_rounding_the_activations_explains(form, shape):
    """|y - W x| <= sum |w| s/2, where s is the step of x: that of the row, or of its group."""
    weights = there_and_back(form, matrix(*shape))
    x = np.random.default_rng(1).standard_normal(shape[1]).astype(np.float32)
    exact = weights.astype(np.float64) @ x
    size = np.abs(weights.astype(np.float64))
    step = np.zeros(shape[1])
    if form.arithmetic == "int8":
        group = shape[1] if form.name == "int8" else 32
        for start in range(0, shape[1], group):
            step[start : start + group] = np.abs(x[start : start + group]).max() / 127
    bound = size @ step / 2 + 1e-5 * (size @ np.abs(x)) + 1e-7
    assert (np.abs(product(form, weights, x) - exact) <= bound).all()


@pytest.mark.parametrize("form", EVERY)
def test_a_product_keeps_the_promise_of_the_format(form):
    weights = there_and_back(form, np.random.default_rng(0).standard_normal((256, 512), np.float32))
    x = np.random.default_rng(1).standard_normal(512).astype(np.float32)
    exact = weights.astype(np.float64) @ x
    assert np.abs(product(form, weights, x) - exact).max() <= form.rtol * np.abs(exact).max()
