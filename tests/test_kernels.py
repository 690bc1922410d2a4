"""The contract of every registered kernel."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from harness import plugins
from harness.verify import verify
from kernels import lowering, matvec_f32, spec
from kernels.spec import KernelError
from tests import contract
from tests.contract import RATES, drawn, guarded, ran, settled, spoiled

KERNELS = plugins.kernel_specs()
EVERY = [pytest.param(k, id=name) for name, k in KERNELS.items()]
PRODUCTS = [k for k in KERNELS.values() if "mat" in k.name or k.name == "selector"]
ROUNDED = [name for name in KERNELS if "int" in name and "mat" in name]


# ---- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 7, 33, 64])
@pytest.mark.parametrize("kernel", EVERY)
def test_a_kernel_agrees_with_its_reference_and_leaves_no_gap(kernel, value):
    for seed in range(2):
        verify(kernel, settled(kernel, value), seed)


@pytest.mark.parametrize("kernel", EVERY)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_kernel_agrees_with_its_reference_at_any_sizes(kernel, data):
    sizes = {name: data.draw(st.integers(1, 70), label=name) for name in kernel.example}
    verify(kernel, dict(kernel.settle(sizes)), data.draw(st.integers(0, 99), label="seed"))


@pytest.mark.parametrize("kernel", EVERY)
def test_the_example_of_a_spec_is_legal(kernel):
    assert dict(kernel.settle(kernel.example)) == dict(kernel.example)
    verify(kernel, kernel.example)


@pytest.mark.parametrize("value", [1, 7, 33, 64])
@pytest.mark.parametrize("kernel", EVERY)
def test_a_kernel_writes_only_what_it_declares(kernel, value):
    contract.writes_only_what_it_declares(kernel, settled(kernel, value))


@pytest.mark.parametrize("kernel", EVERY)
def test_what_scratch_and_outputs_held_before_does_not_matter(kernel):
    contract.forgets_what_was_there(kernel, settled(kernel, 33))


@pytest.mark.parametrize("value", [7, 64])
@pytest.mark.parametrize("kernel", EVERY)
def test_work_shared_in_spans_gives_the_same_bits(kernel, value):
    contract.shares_in_spans(kernel, settled(kernel, value))


# ---- values that are not finite -----------------------------------------------------------------


@pytest.mark.parametrize("value", [7, 33])
@pytest.mark.parametrize("kernel", [k for k in EVERY if k.values[0].nan == "propagates"])
def test_a_nan_reaches_everything_that_depends_on_it(kernel, value):
    contract.hands_on_a_nan(kernel, settled(kernel, value, n=3))


@pytest.mark.parametrize("kernel", [k for k in EVERY if k.values[0].nan == "propagates"])
@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_an_infinity_never_becomes_a_plausible_number(kernel, infinity):
    sizes = settled(kernel, 33, n=3)
    for seed in range(4):
        for clean, _, i, element in spoiled(kernel, sizes, seed):
            if kernel.of("input", "state")[i].name in RATES:
                continue
            bad = [a.copy() for a in clean]
            bad[i].reshape(-1)[element] = infinity
            with np.errstate(invalid="ignore"):
                right = _in_order(kernel, kernel.reference(sizes, *(a.copy() for a in bad)))
            after = ran(kernel, sizes, bad)
            trio = zip(ran(kernel, sizes, clean), after, right, strict=True)
            for plain, found, wanted in trio:
                finite = np.isfinite(found)
                close = np.isclose(found, wanted, rtol=1e-3, atol=1e-3)
                fine = ~finite | close | (found == plain)
                assert fine.all(), (i, element)


def _in_order(kernel, reference):
    """(*outputs, *state) as the reference gives them -> in the order of the arguments."""
    outputs, states = len(kernel.of("output")), iter(reference[len(kernel.of("output")) :])
    first = iter(reference[:outputs])
    return [next(first if a.role == "output" else states) for a in kernel.of("state", "output")]


def test_a_nan_in_a_float32_weight_spoils_its_row_alone():
    weights = np.ones((20, 5), np.float32)
    weights[17, 3] = np.nan
    sizes = {"m": 20, "k": 5}
    (y,) = spec.call(matvec_f32.SPEC, sizes, matvec_f32.layout(weights), np.ones(5, np.float32))
    assert np.flatnonzero(np.isnan(y)).tolist() == [17]


@pytest.mark.parametrize("name", ROUNDED)
def test_values_too_small_to_round_become_zero_and_huge_ones_stay_finite(name):
    kernel = KERNELS[name]
    sizes = settled(kernel, 40)
    weights, x = drawn(kernel, sizes)
    (y,) = spec.call(kernel, sizes, weights, np.full_like(x, 1e-35))
    assert (y == 0).all()
    (y,) = spec.call(kernel, sizes, weights, x * np.float32(1e34))
    assert np.isfinite(y).all()


# ---- costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 7, 64])
@pytest.mark.parametrize("kernel", EVERY)
def test_moved_bytes_are_those_of_the_arrays(kernel, value):
    """Inputs read once, outputs written once; state at most read and written once."""
    sizes = settled(kernel, value)
    size = {
        role: sum(a.nbytes for a in spec.allocate(kernel, sizes, role))
        for role in ("input", "output", "state")
    }
    least = size["input"] + size["output"]
    moved = kernel.cost(sizes).moved_bytes
    assert least <= moved <= least + 2 * size["state"]
    if kernel.name in ("mcsd", "rope"):  # all of the state is read and written
        assert moved == least + 2 * size["state"]


def test_attention_moves_half_of_its_room_and_what_it_appends():
    kernel, sizes = KERNELS["attention"], {"n": 4, "h": 6, "g": 3, "w": 8, "c": 24}
    float32s = 2 * 4 * 6 * 8 + 2 * 4 * 3 * 8  # q, y; new k and v
    past, appended = 2 * 3 * 10 * 8, 2 * 3 * 4 * 8
    assert kernel.cost(sizes).moved_bytes == 8 + 4 * (float32s + past + appended)


class Counter(TorchDispatchMode):
    """Operations of what PyTorch really runs: products, and everything element by element."""

    HARD = ("exp", "sigmoid", "softmax", "silu", "polar", "rsqrt", "pow")
    FREE = (
        "view", "expand", "slice", "select", "transpose", "permute", "t", "clone", "copy_", "cat",
        "arange", "ones", "zeros", "_to_copy", "unsqueeze", "reshape", "as_strided", "split",
        "detach", "alias", "lift_fresh", "empty", "fill_", "real", "imag", "view_as_real",
        "_unsafe_view", "where", "masked_fill", "le", "gt", "eq", "clamp", "squeeze", "index",
        "index_put_", "complex", "scalar_tensor", "split_with_sizes", "_conj", "full",
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.products = self.others = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in ("mm", "mv", "bmm", "dot"):
            self.products += 2 * out.numel() * args[0].shape[-1]
        elif name not in self.FREE:
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            size = max([t.numel() for t in tensors] + [out.numel()])
            each = 4 if any(hard in name for hard in self.HARD) else 1
            self.others += size * each * (6 if out.is_complex() and name == "mul" else 1)
        return out


def traced(kernel, sizes, draws=20):
    """Mean (products, others) of the reference; the mean is over depths where they vary."""
    counter = Counter()
    for seed in range(draws):
        arrays = drawn(kernel, sizes, seed)
        with counter:
            kernel.reference(sizes, *arrays)
    return counter.products / draws, counter.others / draws


@pytest.mark.parametrize("kernel", [pytest.param(k, id=k.name) for k in PRODUCTS])
def test_the_operations_of_a_product_are_those_of_the_traced_reference(kernel):
    for value in (1, 7, 32):
        sizes = settled(kernel, value, z=10**6)  # as dense as the reference treats it
        assert kernel.cost(sizes).operations == traced(kernel, sizes, 1)[0]


@pytest.mark.parametrize("kernel", EVERY)
def test_operations_agree_with_the_traced_reference(kernel):
    """Within a factor of two; one token, since the reference of a recurrence is quadratic in n."""
    sizes = settled(kernel, 32, n=1, z=10**6)
    ratio = kernel.cost(sizes).operations / sum(traced(kernel, sizes))
    assert 0.5 <= ratio <= 2, ratio


# ---- the edge -----------------------------------------------------------------------------------


def refused(kernel, sizes, arrays, *words):
    with pytest.raises(KernelError) as caught:
        spec.check(kernel, sizes, arrays)
    message = str(caught.value)
    assert "\n" not in message
    for word in (kernel.name, *words):
        assert word in message, message


@pytest.mark.parametrize("kernel", EVERY)
def test_wrong_arrays_are_refused_by_name(kernel):
    sizes = kernel.example
    _, arrays = guarded(kernel, sizes, drawn(kernel, sizes))
    spec.check(kernel, sizes, arrays)
    for i, argument in enumerate(kernel.arguments):

        def swapped(array, i=i):
            return [*arrays[:i], array, *arrays[i + 1 :]]

        name, good = argument.name, arrays[i]
        other = np.float64 if good.dtype == np.float32 else np.float32
        longer = np.zeros((good.shape[0] + 1, *good.shape[1:]), good.dtype)
        refused(kernel, sizes, swapped(longer), name, "shape")
        refused(kernel, sizes, swapped(good[None]), name, "shape")
        refused(kernel, sizes, swapped(good.astype(other)), name, np.dtype(other).name)
        if good.itemsize > 1:
            refused(kernel, sizes, swapped(good.astype(good.dtype.newbyteorder())), name)
        refused(kernel, sizes, swapped(good.tolist()), name, "NumPy array")
        if good.size > 1:
            strided = np.repeat(good, 2, -1)[..., ::2]
            refused(kernel, sizes, swapped(strided), name, "contiguous")
        if argument.role != "input":
            fixed = good.copy()
            fixed.flags.writeable = False
            refused(kernel, sizes, swapped(fixed), name, "read-only")
            for j, second in enumerate(kernel.arguments):
                if j != i and (arrays[j].shape, arrays[j].dtype) == (good.shape, good.dtype):
                    refused(kernel, sizes, swapped(arrays[j]), name, second.name, "share memory")


@pytest.mark.parametrize("kernel", EVERY)
def test_a_written_array_that_overlaps_another_is_refused(kernel):
    sizes = kernel.example
    _, arrays = guarded(kernel, sizes, drawn(kernel, sizes))
    written = next(i for i, a in enumerate(kernel.arguments) if a.role in ("output", "state"))
    read = next(i for i, a in enumerate(kernel.arguments) if i != written)
    pool = np.zeros(arrays[written].nbytes + arrays[read].nbytes, np.uint8)
    for i, start in ((written, 0), (read, arrays[written].nbytes - 8)):
        start -= start % arrays[i].itemsize
        part = pool[start : start + arrays[i].nbytes]
        arrays[i] = part.view(arrays[i].dtype).reshape(arrays[i].shape)
    refused(kernel, sizes, arrays, kernel.arguments[written].name, "share memory")


@pytest.mark.parametrize("kernel", EVERY)
def test_wrong_sizes_and_counts_are_refused(kernel):
    sizes = dict(kernel.example)
    _, arrays = guarded(kernel, sizes, drawn(kernel, sizes))
    refused(kernel, sizes, arrays[:-1], f"got {len(arrays) - 1}")
    refused(kernel, sizes, [*arrays, arrays[0]], f"got {len(arrays) + 1}")
    first = next(iter(sizes))
    for wrong in (0, -1, 2.0):
        refused(kernel, {**sizes, first: wrong}, arrays, f"'{first}': {wrong}")
    refused(kernel, {k: v for k, v in sizes.items() if k != first}, arrays, f"sizes {first}")
    with pytest.raises(KernelError, match=rf"^{kernel.name} takes .*, got 0$"):
        spec.call(kernel, sizes)


def test_sizes_that_cannot_run_are_answered_with_the_nearest_that_can():
    with pytest.raises(KernelError, match=r"^rope cannot run at .*nearest: .*'w': 8"):
        spec.call(KERNELS["rope"], {"n": 1, "h": 1, "w": 7})
    with pytest.raises(KernelError, match=r"^rope sizes must be positive whole numbers.*-1"):
        spec.call(KERNELS["rope"], {"n": -1, "h": 1, "w": 8})


# ---- processors without special instructions ----------------------------------------------------

DIGESTS = """
import sys
from tests.test_kernels import digest
for name in sys.argv[1:]:
    print(name, digest(name))
"""


def digest(name):
    kernel, found = KERNELS[name], hashlib.sha256()
    for value in (5, 40, 64):
        sizes = settled(kernel, value)
        for array in ran(kernel, sizes, drawn(kernel, sizes)):
            found.update(array.tobytes())
    return found.hexdigest()


def test_the_plain_path_gives_the_same_bits():
    environment = {**os.environ, lowering.PLAIN: "1"}
    out = subprocess.run(
        [sys.executable, "-c", DIGESTS, *ROUNDED],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert dict(line.split() for line in out.stdout.splitlines()) == {n: digest(n) for n in ROUNDED}


def test_every_kernel_keeps_its_contract_without_special_instructions():
    chosen = "leaves_no_gap or declares or scratch or spans or nan_reaches or too_small"
    command = [sys.executable, "-m", "pytest", __file__, "-x", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-k", chosen],
        env={**os.environ, lowering.PLAIN: "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
