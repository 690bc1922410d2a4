"""Where one algorithm overtakes another, against projections at both sides of the crossing."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest

from harness import candidates, crossings, crossover, hardware, likeness, roofline, workload
from harness.errors import BadInput, HarnessError
from harness.project import project
from targets.profile import load

SIZE = "500m"
DEVICES = ("rpi5", "rpizero2w", "oneplus13_sd8elite", "ryzen_7950x")


@pytest.fixture(scope="module")
def found():
    return crossover.crossovers([load(name) for name in DEVICES], SIZE, ("f32", "int4", "ternary"))


def seconds(device, candidate, depth=0, active=None):
    """Of a token as `project` says it, with the best of all counts of threads."""
    recipe = candidates.parse(candidate)
    if active is not None:
        recipe = replace(recipe, active=active)
    run = workload.parse(f"tg1 @ d{round(depth)}")
    spec = workload.build(recipe, candidates.final_shape(recipe), run)
    roomy = replace(device, memory_bytes=load("ryzen_7950x").memory_bytes)
    counts = {1, device.cores, int(device.clusters[0].count.value)}
    return min(project(spec, roomy, threads).value for threads in counts)


def reach():
    return 1.645 * math.sqrt(2 * likeness.variances(roofline.load())["noise"])


def test_either_side_of_a_context_length_projections_disagree_on_who_is_faster(found):
    for one in found:
        if one.format == "f32":
            continue
        device, step = load(one.device), f"{SIZE}@{one.format}"
        mcsd = seconds(device, f"mcsd:{step}")
        for place, least in ((one.depth.even, 0.0), (one.depth.sure, reach())):
            for depth, leads in ((1.05 * place + 1, True), (0.95 * place - 1, False)):
                if depth < 0:
                    continue  # it leads from the first token on
                lead = math.log(seconds(device, f"attention:{step}", depth) / mcsd)
                assert (lead >= least) == leads, (one, depth, lead)


def test_either_side_of_an_active_fraction_projections_disagree_on_who_is_faster(found):
    for one in found:
        if one.format != "int4":
            continue
        device = load(one.device)
        dense = seconds(device, f"attention:{SIZE}@int4")
        for active, leads in ((0.97 * one.active.sure, True), (1.03 * one.active.sure, False)):
            sparse = seconds(device, f"attention+selective:{SIZE}@int4", active=active)
            assert (math.log(dense / sparse) >= reach()) == leads


def test_fewer_bits_bring_the_crossing_nearer(found):
    for device in DEVICES:
        sure = {one.format: one.depth.sure for one in found if one.device == device}
        assert sure["ternary"] < sure["int4"] < sure["f32"]


def test_work_that_is_equal_is_equally_fast_and_said_to_be_tied(found):
    assert {one.equal.verdict for one in found if one.format == "int4"} == {"tied"}


def test_a_cache_fits_up_to_a_context_and_no_further(found):
    one = next(x for x in found if (x.device, x.format) == ("rpi5", "int4"))
    device = load("rpi5")
    recipe = candidates.parse(f"attention:{SIZE}@int4")
    for depth, fits in ((0.99 * one.fits, True), (1.01 * one.fits, False)):
        run = workload.parse(f"tg1 @ d{round(depth)}")
        spec = workload.build(recipe, candidates.final_shape(recipe), run)
        assert (spec.resident_bytes <= device.memory_bytes.value) == fits
    small = next(x for x in found if (x.device, x.format) == ("rpizero2w", "f32"))
    assert small.fits is None
    assert "weights do not fit" in crossings.markdown(found)


@pytest.mark.parametrize(
    ("lead", "verdict", "even", "sure"),
    [
        ([1.0, 2.0, 3.0], "always", 0.0, 0.0),
        ([-3.0, -2.0, -1.0], "never", None, None),
        ([-0.1, 0.1, 0.2], "tied", 0.5, None),
        ([-1.0, 1.0, 3.0], "crosses", 0.5, 0.75),
        ([-2.0, 0.2, 0.4], "crosses", 20 / 22, None),
        ([1.0, -1.0, 1.0], "crosses", 1.5, 1.75),
    ],
)
def test_a_lead_is_read_where_it_stays(lead, verdict, even, sure):
    one = crossover.crossing(np.array([0.0, 1.0, 2.0]), np.array(lead), 0.5)
    assert one.verdict == verdict
    assert one.even == (None if even is None else pytest.approx(even))
    assert one.sure == (None if sure is None else pytest.approx(sure))


def test_the_table_has_a_line_for_every_device_and_format(found):
    rows = list(csv.DictReader(io.StringIO(crossings.as_csv(found))))
    assert [(r["device"], r["format"]) for r in rows] == [(o.device, o.format) for o in found]
    assert all(r["equal_verdict"] == "tied" for r in rows if r["format"] == "int4")


def test_what_cannot_be_compared_is_told_in_a_line():
    for devices, size, formats in (
        ([], SIZE, ["int4"]),
        ([load("rpi5")], "9q", ["int4"]),
        ([load("rpi5")], SIZE, ["int3"]),
    ):
        with pytest.raises(HarnessError) as refused:
            crossover.crossovers(devices, size, formats)
        assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="at least one device"):
        crossover.crossovers([load("rpi5")], SIZE, [])


def test_where_our_engine_was_never_timed_the_table_and_the_page_say_so(found):
    """A fit of one x86 machine: every Arm device is beyond it, and no x86 one with its vectors."""
    seen = roofline.load().provenance["isa"]
    page, rows = crossings.markdown(found), csv.DictReader(io.StringIO(crossings.as_csv(found)))
    notes = {row["device"]: row["note"] for row in rows}
    for name in DEVICES:
        unseen = hardware.isa(load(name), load(name).cores) not in seen
        assert ("never timed" in notes[name]) == unseen, name
    (line,) = (line for line in page.splitlines() if "never timed on dotprod" in line)
    assert "rpi5" in line
    assert "ryzen_7950x" not in line
