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
    matvec_ternary,
    sparse_matvec,
    sparse_matvec_f16,
    sparse_matvec_int4,
    sparse_matvec_int8,
    spec,
)

FORMATS = plugins.formats()
EVERY = [pytest.param(f, id=name) for name, f in FORMATS.items()]
SHAPES = [(1, 1), (7, 33), (33, 7), (16, 32), (64, 96), (3, 100)]
UNPACK_STREAM = {
    "matmul_f32": matvec_f32.unpack,
    "matmul_f16": matvec_f16.unpack,
    "matmul_bf16": matvec_bf16.unpack,
    "matmul_int8": matvec_int8.unpack,
    "matmul_int8g32": matvec_int8g32.unpack,
    "matmul_int4": matvec_int4.unpack,
    "matmul_ternary": matvec_ternary.unpack,
    "sparse_matvec": sparse_matvec.unpack,
    "sparse_matvec_f16": sparse_matvec_f16.unpack,
    "sparse_matvec_int8": sparse_matvec_int8.unpack,
    "sparse_matvec_int4": sparse_matvec_int4.unpack,
}
SPARSE = [pytest.param(f, id=name) for name, f in FORMATS.items() if f.density < 1]


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
    if form.density < 1:
        sizes |= {"n": 1, "z": kept(form, weights.shape)}
        (y,) = spec.call(plugins.kernel_specs()[form.kernel], sizes, stream, x[None])
        return y[0]
    single = form.kernel.replace("matmul", "matvec")
    (y,) = spec.call(plugins.kernel_specs()[single], sizes, stream, x)
    return y


def kept(form, shape):
    return sparse50.kept(*shape, percent=round(100 * (1 - form.density)))


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
@pytest.mark.parametrize("form", SPARSE)
def test_a_sparse_format_keeps_the_larger_weights_as_its_base_rounds_them(form, shape):
    weights = matrix(*shape)
    back = there_and_back(form, weights)
    count = kept(form, shape)
    assert (back != 0).sum() <= count
    stored = np.sort(np.abs(weights).reshape(-1))[weights.size - count :]
    least = stored[0] if count else np.inf
    assert (back[np.abs(weights) < least] == 0).all()
    base = FORMATS[form.name[len("sparse50") :] or "f32"]
    alone = there_and_back(base, np.where(np.abs(weights) > least, weights, 0))
    larger = np.abs(weights) > least
    if base.name != "int4" or larger.sum() == count:  # a tie may be what sets a group's scale
        np.testing.assert_array_equal(back[larger], alone[larger])


def test_of_equal_weights_the_first_are_kept():
    assert sparse50.larger(np.ones((2, 4)), 5).tolist() == [[True] * 4, [True] + [False] * 3]
    assert not sparse50.larger(np.ones((2, 4)), 0).any()


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
        UNPACK_STREAM[form.kernel](stream, *shape), there_and_back(form, weights)
    )


@pytest.mark.parametrize("form", EVERY)
def test_a_format_says_how_many_bits_it_takes(form):
    rows, columns = 512, 1024
    bits = 8 * sum(a.nbytes for a in form.pack(matrix(rows, columns)).values()) / (rows * columns)
    assert bits == pytest.approx(form.bits, rel=0.01, abs=0.06)
    assert 8 * form.layout_bytes(rows, columns) / (rows * columns) == pytest.approx(
        bits, rel=0.01, abs=0.09
    )


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
        np.testing.assert_array_equal(UNPACK_STREAM[form.kernel](stream, *wanted.shape), wanted)


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
    [("stored", lambda a: a | 1), ("stored", lambda a: a[:, :-1]), ("stored", lambda a: a[1:]),
     ("", lambda a: a[:-1])],
)  # fmt: skip
@pytest.mark.parametrize("form", SPARSE)
def test_sparse_arrays_that_would_reach_outside_make_no_stream(form, part, change):
    arrays = dict(form.pack(matrix(20, 64)))
    arrays[part] = np.ascontiguousarray(change(arrays[part]))
    with pytest.raises(ValueError, match=r"do not fit|do not make"):
        form.layout(arrays, (20, 64))


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
