"""Device -> its facts in one row, its last cache; with threads -> cores in use and clocks."""

from __future__ import annotations

from dataclasses import fields

from targets.facts import Cluster, Device, Fact


def all_facts(device: Device) -> tuple[Fact, ...]:
    """Every fact that the profile states."""
    nouns: tuple[Device | Cluster, ...] = (device, *device.clusters)
    found = [getattr(noun, field.name) for noun in nouns for field in fields(noun)]
    found += [*device.read_bandwidth.values(), *device.caches.values()]
    return tuple(fact for fact in found if isinstance(fact, Fact))


def used(device: Device, threads: int) -> tuple[tuple[Cluster, int], ...]:
    """Clusters and how many of their cores so many threads use, fastest first."""
    left, found = threads, []
    for cluster in device.clusters:
        taken = min(left, int(cluster.count.value))
        if taken:
            found.append((cluster, taken))
        left -= taken
    return tuple(found)


def clock(cluster: Cluster, busy: int) -> float:
    """Of so many busy cores of a cluster [Hz]: the boost of one falls with 1 / their number.

    So do the clusters of an M1 Max and an M2 Max within 3 %; others have but the two ends known.
    """
    count, full = cluster.count.value, cluster.clock_hz.value
    if cluster.boost_hz is None or busy >= count:
        return full
    return full + (cluster.boost_hz.value - full) * (1 / busy - 1 / count) / (1 - 1 / count)


def last_cache(device: Device) -> float:
    """Bytes of the largest cache beyond the first level; 0 where none is stated."""
    return max((f.value for level, f in device.caches.items() if level != "l1d"), default=0.0)
