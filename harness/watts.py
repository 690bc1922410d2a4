"""Device -> how its power divides: by core, by byte moved, by operation.

What a profile states of a cycle (`cycle_joules`) and of the memory (`dram`) is used; the rest is
general.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.records import Workload
from targets.profile import Cluster, Device, Dram, last_cache, used

JOULES_PER_BIT: dict[Dram, float] = {  # from memory to the core
    "lpddr4": 13.5e-12,  # the device alone, measured: https://github.com/Dongyunkam/DRAM_info
    # with controller, engineering estimates in open documents
    "lpddr5": 9e-12,
    "lpddr5x": 7.5e-12,
    "ddr4": 20e-12,
    "ddr5": 14e-12,
    # judgements: pins at 0.6 V instead of 1.1; an older process at 1.2 V; a few wires at 1.8 V
    "lpddr4x": 11e-12,
    "lpddr2": 20e-12,
    "psram": 50e-12,
}
OTHER_JOULES_PER_BIT = 12e-12  # where the memory is not known: the middle of those
# A judgement: wires are shorter within the chip. Horowitz, ISSCC 2014, has about this ratio.
CACHE_SHARE = 0.2
# An 8-bit multiply and add cost 0.23 pJ at 45 nm (Horowitz, ISSCC 2014), about a quarter of it
# at 7 nm; a float32 one about 4.6 pJ and 1.2. Fetching the instruction is within the core's load.
JOULES_PER_OPERATION = {"int8": 0.03e-12, "float32": 0.6e-12}
# Energy of a cycle grows with the width of the core: about this times its float32 operations per
# cycle to the power below, within a factor of 2.3 of the seven clusters whose device trees state
# coefficient and voltage (RK3588, RK3576, Tensor G1), of which it is the mean.
NARROW_CYCLE_JOULES, WIDTH_POWER = 5.4e-12, 1.5


def active_share(device: Device, threads: int) -> float:
    """The part of the power of all cores that so many busy ones draw, fastest first."""
    busy = sum(n * _one(cluster) for cluster, n in used(device, threads))
    return busy / core_power(device.clusters)


def core_power(clusters: Iterable[Cluster]) -> float:
    """Of all cores when busy, without what leaks [W]; for comparison within a device."""
    return sum(cluster.count.value * _one(cluster) for cluster in clusters)


def _one(cluster: Cluster) -> float:
    stated = cluster.cycle_joules
    cycle = NARROW_CYCLE_JOULES * cluster.float32_per_cycle.value**WIDTH_POWER
    return cluster.clock_hz.value * float(stated.value if stated else cycle)


def traffic_joules(workload: Workload, device: Device) -> float:
    """Of moving the weights and the state of one step."""
    return memory_joules(workload.weight_bytes + workload.state_bytes, device)


def memory_joules(step_bytes: float, device: Device) -> float:
    """Of moving the bytes of a step, from memory, or from the last cache if they stay there."""
    share = CACHE_SHARE if step_bytes <= last_cache(device) else 1.0
    bit = JOULES_PER_BIT[device.dram] if device.dram else OTHER_JOULES_PER_BIT
    return 8 * step_bytes * bit * share


def operation_joules(workload: Workload) -> float:
    """Of the arithmetic of one step."""
    return sum(
        call.count * call.operations * JOULES_PER_OPERATION[call.arithmetic]
        for call in workload.calls
    )
