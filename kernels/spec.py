"""What a kernel file must provide: one `SPEC = Kernel(...)`, and the checks at its edge.

A kernel is a pair. `run` is the Numba code that is timed; `reference` is the PyTorch code that
is trusted. Both are described by one list of arguments, from which shapes are checked, buffers
allocated and contract tests written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Sizes: TypeAlias = Mapping[str, int]
Dimension: TypeAlias = str | int | Callable[[Sizes], int]
Role: TypeAlias = Literal["input", "state", "scratch", "output"]


class KernelError(ValueError):
    """An argument has the wrong shape, type or layout, or shares memory with another."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Work the algorithm implies for one call, on any machine.

    operations:  arithmetic operations [op]; a multiply-add counts 2
    moved_bytes: compulsory traffic, each operand read once and each result written once [B]
    """

    operations: int
    moved_bytes: int


@dataclass(frozen=True, slots=True)
class Argument:
    """One array of a kernel: its part in the call, element type and shape.

    A dimension is the name of a size, a number, or a function of the sizes.
    """

    name: str
    role: Role
    dtype: type[np.generic]
    shape: tuple[Dimension, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One operation, its fast code, its trusted code and its bookkeeping.

    `run(*arrays, first, last)` takes the arrays in the order of `arguments`, does the work items
    first..last of `items(sizes)` independent ones (so that threads can share a call), allocates
    nothing, fills its outputs, updates its state in place and touches nothing else.
    `reference(sizes, *inputs, *state)` returns float64 `(*outputs, *new_state)`.
    """

    name: str
    arguments: tuple[Argument, ...]
    example: Sizes  # a small valid set of sizes
    inputs: Callable[[Sizes, np.random.Generator], tuple[Array, ...]]  # inputs, then state
    items: Callable[[Sizes], int]
    run: Callable[..., None]
    reference: Callable[..., tuple[Array, ...]]
    cost: Callable[[Sizes], Cost]
    rtol: float  # largest accepted |run - reference| / max(1, max|reference|) of one array
    nan: Literal["propagates", "undefined"]  # what a NaN or infinity in the inputs does
    source: str
    settle: Callable[[Sizes], Sizes] = dict  # any positive sizes -> the nearest legal ones

    def of(self, *roles: Role) -> tuple[Argument, ...]:
        return tuple(a for a in self.arguments if a.role in roles)


def shape(argument: Argument, sizes: Sizes) -> tuple[int, ...]:
    """The shape of one argument at these sizes."""
    return tuple(_extent(dimension, sizes) for dimension in argument.shape)


def allocate(kernel: Kernel, sizes: Sizes, *roles: Role) -> tuple[Array, ...]:
    """Arrays for the arguments of these roles; floats start as NaN, so a gap is seen."""
    return tuple(_blank(shape(a, sizes), a.dtype) for a in kernel.of(*roles))


def call(kernel: Kernel, sizes: Sizes, *arrays: Array) -> tuple[Array, ...]:
    """Run a kernel on inputs and state, after checking them; returns its outputs.

    Raises KernelError. This is the safe edge; the engines check once when they plan.
    """
    check_sizes(kernel, sizes)
    given = kernel.of("input", "state")
    if len(arrays) != len(given):
        names = ", ".join(a.name for a in given)
        raise KernelError(f"{kernel.name} takes {len(given)} arrays ({names}), got {len(arrays)}")
    by_name = dict(zip((a.name for a in given), arrays, strict=True))
    for argument in kernel.of("scratch", "output"):
        by_name[argument.name] = _blank(shape(argument, sizes), argument.dtype)
    check(kernel, sizes, [by_name[a.name] for a in kernel.arguments])
    kernel.run(*(by_name[a.name] for a in kernel.arguments), 0, kernel.items(sizes))
    return tuple(by_name[a.name] for a in kernel.of("output"))


def check(kernel: Kernel, sizes: Sizes, arrays: Sequence[Array]) -> None:
    """Raise KernelError unless every array fits its argument and none that is written aliases."""
    check_sizes(kernel, sizes)
    if len(arrays) != len(kernel.arguments):
        names = ", ".join(a.name for a in kernel.arguments)
        raise KernelError(
            f"{kernel.name} runs on {len(kernel.arguments)} arrays ({names}), got {len(arrays)}"
        )
    for argument, array in zip(kernel.arguments, arrays, strict=True):
        where, wanted = f"{kernel.name}: {argument.name}", shape(argument, sizes)
        if not isinstance(array, np.ndarray):
            raise KernelError(f"{where} is a {type(array).__name__}, expected a NumPy array")
        if array.dtype != argument.dtype:
            raise KernelError(f"{where} is {array.dtype}, expected {np.dtype(argument.dtype)}")
        if array.shape != wanted:
            raise KernelError(f"{where} has shape {array.shape}, expected {wanted}")
        if not array.flags.c_contiguous:
            raise KernelError(f"{where} is not C-contiguous; pass np.ascontiguousarray(...)")
        if argument.role != "input" and not array.flags.writeable:
            raise KernelError(f"{where} is read-only, but the kernel writes it")
    for i, (argument, array) in enumerate(zip(kernel.arguments, arrays, strict=True)):
        for other, second in list(zip(kernel.arguments, arrays, strict=True))[i + 1 :]:
            both_read = argument.role == other.role == "input"
            if not both_read and np.may_share_memory(array, second):
                raise KernelError(
                    f"{kernel.name}: {argument.name} and {other.name} share memory, "
                    f"but one of them is written"
                )


def check_sizes(kernel: Kernel, sizes: Sizes) -> None:
    """Raise KernelError unless the kernel can run at these sizes."""
    if missing := set(kernel.example) - set(sizes):
        raise KernelError(f"{kernel.name} needs sizes {', '.join(sorted(missing))}")
    if wrong := {k: v for k, v in sizes.items() if not isinstance(v, int) or v < 1}:
        raise KernelError(f"{kernel.name} sizes must be positive whole numbers, got {wrong}")
    if dict(kernel.settle(sizes)) != dict(sizes):
        raise KernelError(
            f"{kernel.name} cannot run at {dict(sizes)}; nearest: {dict(kernel.settle(sizes))}"
        )


def _extent(dimension: Dimension, sizes: Sizes) -> int:
    if isinstance(dimension, str):
        return sizes[dimension]
    return dimension if isinstance(dimension, int) else dimension(sizes)


def _blank(extents: tuple[int, ...], dtype: type[np.generic]) -> Array:
    blank = np.zeros(extents, dtype)
    if np.issubdtype(dtype, np.floating):
        blank.fill(np.nan)
    return blank
