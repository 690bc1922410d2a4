"""What is uncertain about a point before anything is known of its error: names -> reasons.

A name is what the width of an interval is fitted on (intervals.py); a reason is for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import ours, roofline
from harness.hardware import isa
from harness.roofline import Fit
from harness.settings import Setting
from targets.profile import Device, all_facts

SMALL_BYTES = 5e8  # below, what a layer costs whatever its size weighs as much as its bytes

UNNAMED = "unnamed"  # begins the SoC of a machine that nobody named

# Names with a reason to tell; "extrapolates" ones lie outside what any fit has seen.
TELLING = (
    "training",
    "thin",
    "unnamed",
    "mcu",
    "core",
    "isa",
    "scalar",
    "format",
    "engine",
    "threads",
)


def doubts(setting: Setting, fit: Fit, notes: Sequence[str] = ()) -> Mapping[str, str]:
    """The doubts about a point, by name; notes: what was assumed in reading it."""
    found: dict[str, str] = {}
    device, phase = setting.device, setting.work.phase
    engine = roofline.family("engine", setting.engine) or "other"
    has = isa(device, setting.threads, engine)
    if any("threads not stated" in note for note in notes):
        found["assumed_threads"] = "threads are assumed"
    if any("in no table" in note for note in notes):
        found["assumed_model"] = "the shape of the model is assumed"
    if thin(device):
        guesses = [fact.kind == "estimated" for fact in all_facts(device)]
        found["thin"] = (
            f"a thin profile: its bandwidth was read in no source, {sum(guesses)} of its "
            f"{len(guesses)} facts are estimates"
        )
    if device.soc.startswith(UNNAMED):
        found["unnamed"] = "extrapolates: its source does not say which machine it was"
    if setting.work.resident_bytes < SMALL_BYTES:
        found["small"] = "a small model: overheads weigh"
    if phase == "prefill" and has in ("dotprod", "neon"):
        found["arm_prefill"] = "matrix kernels on Arm differ by engine and version"
    if device.category == "mcu":
        found["mcu"] = "extrapolates: a microcontroller, a class that no fit has seen"
    if device.category == "phone":
        found["phone"] = "phones throttle and place threads as they like"
    for cluster in device.clusters:
        if roofline.family("core", cluster.core) is None:
            found["core"] = f"extrapolates: core {cluster.core} is of no known family"
    if engine == ours.ENGINE:
        found["ours"] = "our engine was timed on few hosts"
    seen = fit.provenance.get("isa", [])
    if engine == ours.ENGINE and isinstance(seen, list) and has not in seen:
        found["isa"] = f"extrapolates: our engine was never timed on {has}"
    if has == "scalar":
        found["scalar"] = "extrapolates: no vector unit"
    about = "numba_format" if engine == ours.ENGINE else "format"
    for name in setting.work.weights:
        if roofline.family(about, name) is None:
            found["format"] = f"extrapolates: format {name} is of no known family"
    if engine == "other":
        found["engine"] = f"extrapolates: engine {setting.engine} is of no known family"
    if setting.threads > device.cores:
        found["threads"] = f"extrapolates: {setting.threads} threads on {device.cores} cores"
    return found


def thin(device: Device) -> bool:
    """Nobody measured what its cores read, and its bus was read in no source either."""
    return not device.read_bandwidth and device.bandwidth.kind == "estimated"
