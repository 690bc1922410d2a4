"""What machines supply to any engine: cycles and bytes per second, with the fitted constants.

Arrays end in (m,) machines; sets of constants, if there are many, come before.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from harness.arrays import Floats, Ints, Machines

TRUST = 0.6  # in a bandwidth that somebody measured, with another program, on another sample
STATIC = 0.75  # share of the work that is divided evenly, so that the slowest core sets the pace
CACHED = (0.6, 1.4)  # resident bytes over cache bytes: below, all hits; above, none


@cache
def columns(names: tuple[str, ...], about: str) -> Ints:
    """Positions of the constants `about.*`, in order."""
    return np.array([i for i, name in enumerate(names) if name.startswith(about + ".")], np.int64)


def pace(machines: Machines, names: tuple[str, ...], values: Floats) -> tuple[Floats, Floats]:
    """Cycles of a core of speed 1 per second: of all cores, and of work they share."""
    speed = values[..., columns(names, "core_speed")]
    speeds = speed @ machines.hertz.T
    slowest = np.min(machines.slowest * speed[..., None, :], axis=-1)
    return speeds, (1 - STATIC) * speeds + STATIC * slowest * machines.cores.sum(axis=1)


def bandwidth(
    machines: Machines, names: tuple[str, ...], values: Floats, trust: float = TRUST
) -> Floats:
    """Bytes per second that the cores of each machine read together from memory.

    trust: weight of a measured bandwidth against the modelled one, on a logarithm
    """
    one = values[..., columns(names, "core_bandwidth")]
    modelled_one = one[..., machines.first]
    known = np.where(np.isnan(machines.read_one), modelled_one, machines.read_one)
    cores = (one @ machines.cores.T) * (known / modelled_one) ** trust
    limits = cores**-3 + (values[..., machines.bus_share] * machines.bus) ** -3
    port = values[..., names.index("other.cluster_bandwidth"), None]
    ports = np.maximum(machines.fabric, 1) * port
    modelled = (limits + np.where(machines.fabric > 0, ports**-3, 0.0)) ** (-1 / 3)
    measured = np.where(np.isnan(machines.read_all), modelled, machines.read_all)
    reached: Floats = modelled * (measured / modelled) ** trust
    return reached


def cached(resident: Floats, size: Floats) -> Floats:
    """The share of what is touched again that a cache of this size still holds."""
    low, high = CACHED
    held: Floats = np.clip((high - resident / np.maximum(size, 1)) / (high - low), 0, 1)
    return held
