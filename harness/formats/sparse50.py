"""The larger weights kept, the others set to zero and skipped: a family of formats.

`sparse50` keeps the larger half in float32, `sparse70` and `sparse90` the largest 30 and 10 %;
`sparse50int8`, `sparse90int4` and so on round what they keep as that format does.

On disk: "stored" says which weights are kept, a bit each (rows, columns / 8), "" holds their levels
row by row, and "scale" the scales of the format they are rounded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Literal

import numpy as np

from harness import plugins
from harness.errors import BadInput
from harness.records import Array, Format
from kernels import sparse_matvec, sparse_matvec_f16, sparse_matvec_int4, sparse_matvec_int8

PERCENTS = (50, 70, 90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The format that kept weights are rounded in.

    bits: of a kept weight; beside: of any weight, for its place in a mask and for scales
    zero: the level of no weight; together: columns that share a scale, 0 for all of a row
    folds: two levels share a byte
    """

    name: str
    kernel: ModuleType
    bits: int
    beside: float
    rtol: float
    arithmetic: Literal["float32", "int8"] = "float32"
    zero: int = 0
    together: int = 0
    folds: bool = False


BASES = (
    Base(name="f32", kernel=sparse_matvec, bits=32, beside=1.0, rtol=1e-5),
    Base(name="f16", kernel=sparse_matvec_f16, bits=16, beside=1.0, rtol=1e-5),
    Base(
        name="int8", kernel=sparse_matvec_int8, bits=8, beside=1.0, rtol=2e-2, arithmetic="int8",
    ),
    Base(  # a float16 scale for 32, and what masks waste when their levels end amid a byte
        name="int4", kernel=sparse_matvec_int4, bits=4, beside=1.0 + 0.5 + 2 / 64, rtol=2e-2,
        arithmetic="int8", zero=8, together=32, folds=True,
    ),
)  # fmt: skip


def kept(rows: int, columns: int, percent: int = 50) -> int:
    return rows * columns - rows * columns * percent // 100


def larger(weights: Array, count: int) -> Array:
    """Where the `count` largest magnitudes are, of equal ones the first; (rows, columns) bool."""
    size = np.abs(weights).reshape(-1)
    least = np.partition(size, size.size - count)[size.size - count] if count else np.inf
    stored = size > least
    ties = np.flatnonzero(size == least)
    stored[ties[: count - int(stored.sum())]] = True
    return stored.reshape(weights.shape)


def pack(base: Base, percent: int, weights: Array) -> Mapping[str, Array]:
    """Raises BadInput."""
    name = name_of(base, percent)
    if not np.isfinite(weights).all():
        raise BadInput(f"{name} cannot store weights that are not finite")
    rows, columns = weights.shape
    stored = larger(weights, kept(rows, columns, percent))
    parts = dict(plugins.formats()[base.name].pack(np.where(stored, weights, np.float32(0.0))))
    whole = parts[""]
    levels = unfolded(whole)[:, :columns] if base.folds else whole
    return parts | gathered(base, stored, levels)


def gathered(base: Base, stored: Array, levels: Array) -> dict[str, Array]:
    """The arrays of these levels, without scales."""
    values = levels[stored]
    return {
        "": folded(values[None])[0] if base.folds else values,
        "stored": np.packbits(stored, axis=1, bitorder="little"),
    }


def unpack(base: Base, arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    _, levels = spread(base, arrays, shape)
    if base.folds:  # as many as make whole groups
        wide = np.full((shape[0], -(-shape[1] // base.together) * base.together), base.zero)
        wide[:, : shape[1]] = levels
        levels = folded(wide.astype(np.uint8))
    parts = {"": levels} | ({"scale": arrays["scale"]} if "scale" in arrays else {})
    return plugins.formats()[base.name].unpack(parts, shape)


def cut(
    base: Base, arrays: Mapping[str, Array], rows: slice, columns: slice
) -> Mapping[str, Array]:
    """Columns must begin where a scale does."""
    whole = arrays["stored"].shape[0], 8 * arrays["stored"].shape[1]
    stored, levels = (part[rows, columns] for part in spread(base, arrays, whole))
    found = gathered(base, stored, levels)
    if "scale" not in arrays:
        return found
    if not base.together:
        return found | {"scale": arrays["scale"][rows]}
    first, last = columns.start or 0, min(columns.stop or whole[1], whole[1])
    if first % base.together:
        raise ValueError(f"a part begins at column {first}, no multiple of {base.together}")
    span = slice(first // base.together, -(-last // base.together))
    return found | {"scale": arrays["scale"][rows, span]}


def layout(base: Base, arrays: Mapping[str, Array], shape: tuple[int, int]) -> Array:
    stored, levels = spread(base, arrays, shape)
    scales: tuple[Array, ...] = ()
    if base.arithmetic == "int8":
        scales = (arrays["scale"],)
        groups = (-(-shape[1] // base.together),) if base.together else ()
        if scales[0].shape != (shape[0], *groups):
            raise ValueError(f"scales {scales[0].shape} do not fit {shape}")
    stream: Array = base.kernel.layout(stored, levels, *scales)
    return stream


def spread(base: Base, arrays: Mapping[str, Array], shape: tuple[int, int]) -> tuple[Array, Array]:
    """Where weights are stored, and the level of every weight; both of `shape`."""
    bits, values = arrays["stored"], arrays[""]
    if bits.shape != (shape[0], -(-shape[1] // 8)):
        raise ValueError(f"bits for {bits.shape} bytes of columns do not make {shape}")
    wide = np.unpackbits(bits, axis=1, bitorder="little").astype(bool)
    stored, count = wide[:, : shape[1]], int(wide.sum())
    if int(stored.sum()) != count:
        raise ValueError(f"weights are stored outside of {shape}")
    if values.ndim != 1 or values.size != (count + 1) // 2 if base.folds else values.size != count:
        raise ValueError(f"{values.shape} values do not fit the {count} places of {shape}")
    if base.folds:
        values = unfolded(values[None])[0, :count]
    levels = np.full(shape, base.zero, values.dtype)
    levels[stored] = values
    return stored, levels


def unfolded(packed: Array) -> Array:
    """Two levels a byte, the even one low, -> one a byte."""
    return np.stack([packed & 15, packed >> 4], -1).reshape(packed.shape[0], -1)


def folded(levels: Array) -> Array:
    """The inverse of unfolded, for any number of levels in a row."""
    even = np.pad(levels, ((0, 0), (0, levels.shape[1] % 2)))
    pairs: Array = even[:, ::2] | (even[:, 1::2] << 4)
    return pairs


def name_of(base: Base, percent: int) -> str:
    return f"sparse{percent}{'' if base.name == 'f32' else base.name}"


def member(base: Base, percent: int) -> Format:
    share = 1 - percent / 100
    return Format(
        name=name_of(base, percent),
        summary=f"unstructured: the largest {100 - percent} % as {base.name}, zeros skipped",
        pack=partial(pack, base, percent),
        unpack=partial(unpack, base),
        cut=partial(cut, base),
        layout=partial(layout, base),
        layout_bytes=lambda rows, columns: base.kernel.layout_bytes(
            rows, columns, kept(rows, columns, percent)
        ),
        kernel=base.kernel.__name__.rpartition(".")[2],
        arithmetic=base.arithmetic,
        bits=share * base.bits + base.beside,
        density=share,
        rtol=base.rtol,
        by_rows=False,
        source="magnitude pruning, Han et al. 2015, without retraining",
    )


SPEC, *VARIANTS = (member(base, percent) for base in BASES for percent in PERCENTS)
