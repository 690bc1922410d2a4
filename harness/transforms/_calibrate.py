"""A checkpoint -> what enters each of its matrices on training text, in the order of use."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from harness import plugins
from harness.candidates import tensors
from harness.errors import BadInput
from harness.records import Array, Checkpoint
from harness.training import batches
from harness.training.model import Block, from_checkpoint

TOKENS = 32_768  # of training text
BATCH = 64  # windows that go through a block at once


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix inside a layer, on its way through calibration.

    name: of the tensor; weights (m,k)
    moments (k,k): mean of x x^T over what enters it, matrices before it being replaced already
    cross (k,k): mean of x' x^T, where x' enters it in the model as it was
    """

    name: str
    weights: Array
    moments: Array
    cross: Array


def replace_each(
    checkpoint: Checkpoint,
    change: Callable[[Matrix], Array],
    progress: Callable[[str, int, int], None],
) -> None:
    """Call `change` for each packed matrix inside layers; what it returns is what later ones see.

    Raises BadInput where a matrix is multiplied in a way that does not show what enters it.
    """
    before, after = from_checkpoint(checkpoint), from_checkpoint(checkpoint)
    packed = [name for name, t in tensors(checkpoint.shape).items() if t.packed]
    windows = text(checkpoint)
    with torch.no_grad():
        was, now = (F.embedding(windows, model.embedding) for model in (before, after))
        for layer, (old, new) in enumerate(zip(before.blocks, after.blocks, strict=True)):
            homes = sources(new, layer)
            left = {name: homes[name][0] for name in packed if name in homes}
            entered = inputs(old, was, set(left.values()))
            while left:
                progress("calibrate", len(packed) - len(left), len(packed))
                parameter, x = next(iter(inputs(new, now, set(left.values())).items()))
                moments, cross = (_product(other, x) for other in (x, entered[parameter]))
                for name in [n for n, home in left.items() if home == parameter]:
                    rows = new.get_parameter(parameter)[homes[name][1]]
                    made = change(Matrix(name, rows.double().numpy(), moments, cross))
                    rows.copy_(torch.from_numpy(made))
                    del left[name]
            was, now = _through(old, was), _through(new, now)


def _product(first: Tensor, second: Tensor) -> Array:
    """Mean of a b^T over rows a of first (n,k) and b of second (n,k), float64."""
    found: Array = (first.T.double() @ second.double() / len(first)).numpy()
    return found


def text(checkpoint: Checkpoint) -> Tensor:
    """Windows (b,n) of training text."""
    corpus = plugins.pick(plugins.corpora(), checkpoint.recipe.corpus, "corpus")
    n, seed = checkpoint.shape.context, checkpoint.recipe.seed
    return batches.at_step(corpus, corpus.load(), -(-TOKENS // n), n, seed, 0, 1)[0]


def sources(block: nn.Module, layer: int) -> dict[str, tuple[str, slice]]:
    """Matrix by its canonical name -> the parameter of the block that holds it, and its rows there.

    A copy of the block, with the number of each row written all over it, is asked to export.
    """
    numbered = copy.deepcopy(block)
    holders, starts, at = [], [], 0
    for name, parameter in numbered.named_parameters():
        if parameter.ndim == 2:
            rows = torch.arange(at, at + len(parameter), dtype=parameter.dtype)
            parameter.data = rows[:, None].expand_as(parameter).clone()
            holders.append(name)
            starts.append(at)
            at += len(parameter)
    found = {}
    for half, part in cast(Block, numbered).layers().items():
        for tensor, array in part.export().items():
            if array.ndim == 2:
                row = int(array[0, 0])
                place = bisect_right(starts, row) - 1
                first = row - starts[place]
                rows_there = slice(first, first + len(array))
                found[f"layers.{layer}.{half}.{tensor}"] = holders[place], rows_there
    return found


def inputs(block: nn.Module, x: Tensor, parameters: set[str]) -> dict[str, Tensor]:
    """What enters the products with these parameters (n,k), in the order of use.

    Raises BadInput for one that is part of no product of two matrices.
    """
    watch = _Watch({block.get_parameter(name): name for name in sorted(parameters)})
    with watch:
        _through(block, x)
    if missing := parameters - watch.seen.keys():
        raise BadInput(f"cannot see what enters {sorted(missing)[0]}: it is not multiplied as one")
    return {name: torch.cat(parts) for name, parts in watch.seen.items()}


def _through(block: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([block(part) for part in torch.split(x, BATCH)])


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the other operand of each operation that takes one of the given parameters."""

    def __init__(self, parameters: dict[nn.Parameter, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {p.untyped_storage().data_ptr(): name for p, name in parameters.items()}
        self.columns = {name: p.shape[1] for p, name in parameters.items()}
        self.seen: dict[str, list[Tensor]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [a for a in args if isinstance(a, Tensor)]
        homes = [self.names.get(a.untyped_storage().data_ptr()) for a in given]
        name = next((home for home in homes if home), None)
        if name and None in homes:
            x = given[homes.index(None)]
            if x.shape[-1] != self.columns[name]:
                x = x.mT
            self.seen.setdefault(name, []).append(x.reshape(-1, self.columns[name]).clone())
        return function(*args, **(kwargs or {}))
