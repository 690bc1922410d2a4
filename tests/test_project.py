"""Projections: against published speeds the fit has not seen, and against common sense."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import calibrate, intervals, observations, roofline
from harness.errors import BadInput
from harness.project import project, work_of
from harness.records import Call, Failed, Projected, Workload
from harness.settings import Setting, points
from targets.profile import Fact, load, load_all, names

ENGINES = ("numba", "llama_cpp")


def decode(weights=10**9, form="int8", tokens=64, layers=16, state=0) -> Workload:
    """A decode of `weights` parameters in one matrix."""
    stored = {"f32": 4.0, "f16": 2.0, "int8": 1.0, "int4": 0.5625}[form]
    matrix = Call(
        kernel="matvec",
        sizes={"n": 1, "m": weights // 4096, "k": 4096},
        count=1,
        operations=2 * weights,
        weight="q",
        weight_bytes=int(weights * stored),
        format=form,
    )
    attend = Call(
        kernel="attention",
        sizes={},
        count=layers,
        operations=state // 2,
        state_bytes=state // layers,
    )
    return Workload(
        name=f"tg{tokens}",
        phase="decode",
        tokens=tokens,
        depth=0,
        layers=layers,
        calls=(matrix, attend),
        resident_bytes=int(weights * stored) + state,
    )


def prefill(tokens: int, weights=10**9) -> Workload:
    one = decode(weights)
    sizes = {**one.calls[0].sizes, "n": tokens}
    matrix = replace(one.calls[0], kernel="matmul", sizes=sizes, operations=2 * weights * tokens)
    return replace(one, name=f"pp{tokens}", phase="prefill", tokens=tokens, calls=(matrix,))


def seconds(workload: Workload, device, threads=4, engine="numba") -> float:
    found = project(workload, device, threads, engine)
    assert isinstance(found, Projected), found
    return found.value


def scaled(fact: Fact, factor: float) -> Fact:
    return replace(fact, value=fact.value * factor)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("engine", ENGINES)
def test_every_device_gets_a_finite_projection_inside_its_interval(name, engine):
    device = load(name)
    size = min(10**7, int(device.memory_bytes.value / 8))
    for work in (decode(size, "int4"), prefill(128, size)):
        for threads in (1, device.cores):
            found = project(work, device, threads, engine)
            assert isinstance(found, Projected)
            assert 0 < found.low < found.value < found.high < math.inf
            assert found.bound in ("memory", "compute", "overhead")
            assert found.model == roofline.load().model


def test_a_llama_of_seven_billion_on_a_pi_5_is_as_slow_as_people_report():
    """llama.cpp Q4_0 on a Pi 5: about 2-3 tokens/s (https://github.com/b4rtaz/distributed-llama)"""
    found = project(decode(6_610_000_000, "int4", layers=32), load("rpi5"), 4, "llama_cpp")
    assert isinstance(found, Projected)
    assert 1.8 < 64 / found.value < 4


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(names()),
    factor=st.floats(1.01, 8),
    size=st.integers(10**4, 10**9),
    form=st.sampled_from(("f32", "int8", "int4")),
    threads=st.sampled_from((1, 2, 4, 8)),
)
def test_more_bandwidth_is_never_slower(name, factor, size, form, threads):
    device = replace(load(name), memory_bytes=Fact(2.0**40, "estimated", "test"))
    faster = replace(
        device,
        bandwidth=scaled(device.bandwidth, factor),
        read_bandwidth={n: scaled(f, factor) for n, f in device.read_bandwidth.items()},
    )
    work = decode(size, form)
    assert seconds(work, faster, threads) <= seconds(work, device, threads) * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(names()),
    size=st.integers(10**4, 10**9),
    more=st.integers(1, 10**9),
    engine=st.sampled_from(ENGINES),
)
def test_a_bigger_model_is_never_faster(name, size, more, engine):
    device = replace(load(name), memory_bytes=Fact(2.0**40, "estimated", "test"))
    small = seconds(decode(size), device, 4, engine)
    assert small <= seconds(decode(size + more), device, 4, engine) * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(names()), factor=st.floats(1.01, 4))
def test_a_faster_clock_is_never_slower(name, factor):
    device = replace(load(name), memory_bytes=Fact(2.0**40, "estimated", "test"))
    faster = replace(
        device,
        clusters=tuple(
            replace(c, clock_hz=scaled(c.clock_hz, min(factor, 1e10 / c.clock_hz.value)))
            for c in device.clusters
        ),
    )
    assert seconds(decode(10**7), faster) <= seconds(decode(10**7), device) * (1 + 1e-9)


def test_more_context_costs_more_and_more_tokens_cost_their_number():
    device = load("rpi5")
    assert seconds(decode(state=10**8), device) > seconds(decode(), device)
    assert seconds(decode(tokens=128), device) == pytest.approx(2 * seconds(decode(), device))


def test_a_prompt_is_cheaper_per_token_than_decoding():
    device = load("apple_m1")
    assert seconds(prefill(512), device) / 512 < seconds(decode(tokens=1), device)


@pytest.mark.parametrize("name", names())
def test_no_projection_computes_faster_than_the_peak_of_the_cores(name):
    device = replace(load(name), memory_bytes=Fact(2.0**40, "estimated", "test"))
    peak = sum(c.count.value * c.clock_hz.value * c.int8_per_cycle.value for c in device.clusters)
    work = prefill(512, 10**8)
    assert work.operations / seconds(work, device, device.cores) < peak


def test_what_bounds_a_run_is_named():
    device = load("rpi5")
    assert project(decode(), device, 4).bound == "memory"
    assert project(prefill(512), device, 4).bound == "compute"
    assert project(decode(1000, layers=100), device, 4).bound == "overhead"


def test_a_model_in_the_cache_is_faster_than_its_bytes_through_memory():
    device = load("ryzen_8840u")
    uncached = replace(device, caches={})
    work = decode(2 * 10**6, layers=1)
    assert seconds(work, device) < 0.7 * seconds(work, uncached)


def test_what_does_not_fit_says_what_it_needs():
    found = project(decode(2 * 10**9), load("rpizero2w"), 4)
    assert found == Failed(
        reason="does not fit: needs 1,907 MiB, rpizero2w has 350 MiB for a program"
    )


def test_no_threads_are_refused():
    with pytest.raises(BadInput, match="at least 1"):
        project(decode(), load("rpi5"), 0)


def test_doubts_are_named_and_widen_the_interval():
    known = project(decode(), load("rpi5"), 4, "llama_cpp")
    doubtful = project(decode(), load("hifive_p550"), 4, "llama_cpp")
    assert not known.flags
    assert any("no vector unit" in flag for flag in doubtful.flags)
    assert doubtful.high / doubtful.value > known.high / known.value
    strange = replace(load("rpi5").clusters[0], core="quantum-1")
    found = project(decode(), replace(load("rpi5"), clusters=(strange,)), 4, "llama_cpp")
    assert any("quantum-1" in flag for flag in found.flags)
    assert any("64 threads" in f for f in project(decode(), load("rpi5"), 64).flags)


def test_many_points_at_once_agree_with_one_at_a_time():
    fitted = roofline.load()
    seen = observations.published({d.name: d for d in load_all()})[:40]
    together = calibrate.steps([o.setting for o in seen], fitted)
    alone = [calibrate.steps([o.setting], fitted)[0] for o in seen]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_our_engine_beside_another_is_projected_as_it_is_alone():
    fitted = roofline.load()
    works = [work_of(w) for w in (decode(10**8, "int4"), prefill(200, 10**7), decode(10**6, "f32"))]
    mixed = [
        Setting(work=work, device=load("rpi5"), threads=4, engine=engine)
        for work in works
        for engine in ENGINES
    ]
    alone = [calibrate.steps([one], fitted)[0] for one in mixed]
    np.testing.assert_allclose(calibrate.steps(mixed, fitted), alone, rtol=1e-12)


def test_a_prompt_takes_half_the_time_at_twice_the_clock():
    device = load("ryzen_8840u")
    (cores,) = device.clusters
    slow = replace(device, clusters=(replace(cores, boost_hz=None),))
    twice = replace(cores, clock_hz=scaled(cores.clock_hz, 2), boost_hz=None)
    work = prefill(500, 10**8)
    quick = seconds(work, replace(device, clusters=(twice,)))
    assert quick == pytest.approx(seconds(work, slow) / 2, rel=0.05)


# ---- the fit -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen():
    return observations.published({d.name: d for d in load_all()})


def test_every_device_of_the_published_table_has_a_profile(seen):
    rows = [o.row for o in seen]
    assert rows == sorted(set(rows))
    assert len([o for o in seen if o.phase == "decode"]) >= 290
    assert len([o for o in seen if o.phase == "prefill"]) >= 85


def test_rows_the_fit_does_without_are_listed_with_a_reason():
    listed = observations.excluded()
    assert len(listed) >= 60
    assert all(reason for _, _, reason in listed)


@pytest.mark.parametrize("soc", ["BCM2712", "Apple M2 Max", "X1E-80-100", "Coffee Lake"])
def test_speeds_of_a_chip_left_out_are_foreseen(seen, soc):
    fitted = calibrate.fit([o for o in seen if o.group != soc])
    held = [o for o in seen if o.group == soc and o.phase == "decode" and not o.distrusted]
    ratio = calibrate.steps([o.setting for o in held], fitted) / [o.seconds for o in held]
    assert np.median(np.abs(np.log(ratio))) < 0.35


def test_the_shipped_fit_is_what_the_shipped_data_gives(seen):
    shipped = roofline.load()
    fitted = calibrate.fit(seen)  # rows of our own engine move no constant of others
    times, again = (calibrate.steps([o.setting for o in seen], f) for f in (shipped, fitted))
    np.testing.assert_allclose(times, again, rtol=0.02)


def test_our_own_rows_move_no_constant_of_other_engines(seen):
    some = [o for o in seen if o.group in ("BCM2712", "Ryzen 9 7950X")]
    ours = replace(some[0], setting=replace(some[0].setting, engine="numba"), seconds=1e3)
    alone, together = (
        dict(zip(fit.names, fit.values, strict=True))
        for fit in (calibrate.fit(some), calibrate.fit([*some, ours]))
    )
    moved = {name for name, value in alone.items() if together[name] != value}
    assert moved
    assert all(name.startswith("ours.") for name in moved)


def test_a_fit_written_out_reads_back_the_same(tmp_path):
    shipped = roofline.load()
    (tmp_path / "fit.json").write_text(roofline.as_json(shipped))
    back = roofline.load(tmp_path / "fit.json")
    np.testing.assert_array_equal(back.values, shipped.values)
    assert back.intervals == shipped.intervals


def test_a_broken_fit_is_refused_in_one_line(tmp_path):
    (tmp_path / "fit.json").write_text("{}")
    with pytest.raises(BadInput, match=r"fit\.json is no fit"):
        roofline.load(tmp_path / "fit.json")


def test_fitting_nothing_is_refused():
    with pytest.raises(BadInput, match="nothing to calibrate on"):
        calibrate.fit([])


def test_the_interval_covers_what_it_promises_when_devices_differ_at_random():
    rng = np.random.default_rng(7)
    errors = [
        intervals.Error(residual=offset + noise, group=f"soc{i}", doubts=frozenset())
        for i, offset in enumerate(rng.normal(0, 0.3, 40))
        for noise in rng.normal(0, 0.1, rng.integers(1, 20))
    ]
    half = intervals.half(intervals.fit(errors), ())
    assert 0.4 < half < 0.75  # 1.645 standard deviations of 0.316 are 0.52


def test_a_doubt_that_comes_with_larger_errors_widens_and_none_narrows():
    rng = np.random.default_rng(11)
    errors = [
        intervals.Error(
            residual=float(rng.normal(0, 0.1 * (4 if i % 2 else 1))),
            group=f"soc{i}",
            doubts=frozenset(["odd"] if i % 2 else ["even"]),
        )
        for i in range(120)
    ]
    fitted = intervals.fit(errors)
    sure, doubtful = (intervals.half(fitted, [name]) for name in ("even", "odd"))
    assert 2 < doubtful / sure < 6
    assert intervals.half(fitted, ["never seen"]) > intervals.half(fitted, ())
    for wanted in ("even", "odd"):
        rows = [e for e in errors if wanted in e.doubts]
        inside = [abs(e.residual) <= intervals.half(fitted, e.doubts) for e in rows]
        assert 0.8 <= np.mean(inside) <= 1


def test_no_errors_at_all_give_an_honest_wide_interval():
    assert intervals.half(intervals.fit([]), ()) == pytest.approx(math.log(4))


def test_an_excluded_row_moves_no_constant(seen):
    some = [o for o in seen if o.group in ("BCM2712", "N150 (Twin Lake)")]
    spoilt = [replace(o, seconds=100 * o.seconds) if o.distrusted else o for o in some]
    assert any(o.distrusted for o in some)
    np.testing.assert_array_equal(calibrate.fit(some).values, calibrate.fit(spoilt).values)


def test_points_use_the_bandwidth_measured_with_as_many_threads():
    fitted = roofline.load()
    setting = observations.published({"rpi5": load("rpi5")})[0].setting
    for threads, expected in ((1, 11.7e9), (2, 13.23e9), (3, 12.41e9), (4, 11.59e9), (9, 11.59e9)):
        read = points([replace(setting, threads=threads)], fitted).machines.read_all[0]
        assert read == pytest.approx(expected)


def test_a_thin_profile_says_how_thin_and_an_unnamed_machine_that_it_is():
    work = decode(10**7, "int4")
    named, unnamed, known = (
        project(work, load(name), 4, "llama_cpp")
        for name in ("i5_9500", "unnamed_mamba_host", "rpi5")
    )
    assert "11 of its 12 facts are estimates" in " ".join(named.flags)
    assert "9 of its 9 facts are estimates" in " ".join(unnamed.flags)
    assert "does not say which machine" in " ".join(unnamed.flags)
    assert not any("thin" in flag for flag in known.flags)
    assert unnamed.high / unnamed.value > named.high / named.value > known.high / known.value
