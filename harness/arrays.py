"""What the model of speed works on: m machines, w loads, and n points that pair them. All in SI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
DTYPES = {"Floats": np.float64, "Ints": np.int64, "Bools": np.bool_}  # by annotation


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What the model needs to know of m machines, each a device with so many threads.

    A two-dimensional array has one column per family of cores, in the order of the constants.
    """

    cores: Floats  # (m, families) in use
    hertz: Floats  # (m, families) sum of their clocks
    slowest: Floats  # (m, families) lowest of their clocks, inf where none is used
    first: Ints  # (m,) column of the fastest core in use
    threads: Floats  # (m,)
    bus: Floats  # (m,) theoretical bandwidth
    bus_share: Ints  # (m,) index of a constant
    fabric: Floats  # (m,) clusters that each reach memory through a port of their own; 0: no limit
    read_one: Floats  # (m,) measured with one thread, nan where it is not
    read_all: Floats  # (m,) measured with as many threads as here, nan where it is not
    near: Floats  # (m,) second level, what these threads have of it
    cache: Floats  # (m,) last level
    int8_peak: Floats  # (m,) operations per second of the cores in use
    float_peak: Floats  # (m,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What the model needs to know of w loads, each a step of a model on an engine.

    Other engines are known by what they multiply and read, ours by what each call does (counts).
    """

    weights: Floats  # (w, formats) multiply-adds of weights in a step of another engine
    others: Floats  # (w,) multiply-adds without weights in a step of another engine
    other_cycles: Ints  # (w,) index of a constant
    streamed: Floats  # (w,) bytes of weights and state that a step reads
    resident: Floats  # (w,) bytes that a step touches again
    prompt: Floats  # (w,) tokens of a prefill, 0 for a decode
    layers: Floats  # (w,)
    ours: Bools  # (w,) our engine
    counts: Floats  # (w, c) of our engine, in the order of ours.COUNTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """n pairs of a machine and a load.

    which, what: (n,) the machine and the load of each point
    table: (a,b,any) indices of constants whose product multiplies the cycles of the weights, by
    kind of machine (a) and of load (b); kind_of_machine (m,), kind_of_load (w,)
    """

    machines: Machines
    loads: Loads
    which: Ints
    what: Ints
    table: Ints
    kind_of_machine: Ints
    kind_of_load: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Of one step, per point: the parts, and the whole."""

    memory: Floats
    compute: Floats
    overhead: Floats
    total: Floats
