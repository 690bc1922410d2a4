"""What every kernel must do, without PyTorch, so that it can be asked on any CPU."""

from __future__ import annotations

import numpy as np

from kernels import spec

RATES = ("slope", "decay")  # between 0 and 1: an infinite one has no meaning to be true to
PAD = 256  # bytes of no man's land on both sides of every array


def settled(kernel, value, **chosen):
    wanted = {**dict.fromkeys(kernel.example, value), **chosen}
    return dict(kernel.settle({name: wanted[name] for name in kernel.example}))


def guarded(kernel, sizes, given, fill=np.nan):
    """The kernel's arrays, each amid bytes of 0xA5; scratch and outputs full of `fill`."""
    buffers, arrays, given = [], [], list(given)
    for argument in kernel.arguments:
        extents = spec.shape(argument, sizes)
        length = int(np.prod(extents)) * np.dtype(argument.dtype).itemsize
        buffer = np.full(length + 2 * PAD, 0xA5, np.uint8)
        array = buffer[PAD : PAD + length].view(argument.dtype).reshape(extents)
        if argument.role in ("input", "state"):
            array[...] = given.pop(0)
        else:
            array.fill(fill if np.issubdtype(argument.dtype, np.floating) else 0x5A)
        buffers.append(buffer)
        arrays.append(array)
    return buffers, arrays


def results(kernel, arrays):
    return [
        array
        for argument, array in zip(kernel.arguments, arrays, strict=True)
        if argument.role in ("state", "output")
    ]


def ran(kernel, sizes, given):
    """State and outputs after one call on copies of `given`."""
    _, arrays = guarded(kernel, sizes, given)
    kernel.run(*arrays, 0, kernel.items(sizes))
    return results(kernel, arrays)


def drawn(kernel, sizes, seed=0):
    return kernel.inputs(sizes, np.random.default_rng(seed))


def writes_only_what_it_declares(kernel, sizes):
    buffers, arrays = guarded(kernel, sizes, drawn(kernel, sizes))
    before = [array.tobytes() for array in arrays]
    kernel.run(*arrays, 0, kernel.items(sizes))
    for argument, array, old in zip(kernel.arguments, arrays, before, strict=True):
        if argument.role == "input":
            assert array.tobytes() == old, f"{argument.name} is an input, and was written"
        elif argument.role in ("output", "state"):
            assert array.tobytes() != old, f"{argument.name} is declared but never written"
    for argument, buffer in zip(kernel.arguments, buffers, strict=True):
        assert (buffer[:PAD] == 0xA5).all(), f"written before {argument.name}"
        assert (buffer[-PAD:] == 0xA5).all(), f"written past {argument.name}"


def forgets_what_was_there(kernel, sizes):
    """What scratch and outputs held before changes nothing."""
    given, found = drawn(kernel, sizes), []
    for fill in (np.nan, 1e30, 0.0):
        _, arrays = guarded(kernel, sizes, given, fill)
        kernel.run(*arrays, 0, kernel.items(sizes))
        found.append([a.tobytes() for a in results(kernel, arrays)])
    assert found[0] == found[1] == found[2], "depends on what scratch or outputs held"


def shares_in_spans(kernel, sizes):
    """Work in two parts gives the bits of work in one."""
    items, given = kernel.items(sizes), drawn(kernel, sizes)
    whole = [a.tobytes() for a in ran(kernel, sizes, given)]
    for cut in {0, 1, items // 2, items - 1, items}:
        _, arrays = guarded(kernel, sizes, given)
        kernel.run(*arrays, 0, cut)
        kernel.run(*arrays, cut, items)
        assert [a.tobytes() for a in results(kernel, arrays)] == whole, f"cut at {cut}"


def spoiled(kernel, sizes, seed):
    """Inputs, the same with one float changed, and the place (array, element) of that float."""
    rng = np.random.default_rng(seed)
    clean = drawn(kernel, sizes, seed)
    floats = [i for i, a in enumerate(clean) if a.dtype == np.float32]
    for i in floats:
        element = int(rng.integers(clean[i].size))
        moved = [a.copy() for a in clean]
        moved[i].reshape(-1)[element] = 7.5 - 3 * moved[i].reshape(-1)[element]
        yield clean, moved, i, element


def hands_on_a_nan(kernel, sizes):
    """A NaN reaches everything that depends on it."""
    reached = 0
    for seed in range(4):
        for clean, moved, i, element in spoiled(kernel, sizes, seed):
            bad = [a.copy() for a in clean]
            bad[i].reshape(-1)[element] = np.nan
            sets = (ran(kernel, sizes, given) for given in (clean, moved, bad))
            for plain, other, found in zip(*sets, strict=True):
                if not np.issubdtype(found.dtype, np.floating):
                    continue  # packed: what is read from it later would be the NaN
                depends = plain != other
                assert np.isnan(found[depends]).all(), f"a NaN in array {i} at {element} is lost"
                reached += int(depends.sum())
    assert reached, "nothing depends on any input"
