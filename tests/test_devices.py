"""Profiles: the shipped ones are whole and plausible, broken ones are refused in one line."""

from __future__ import annotations

import csv
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import roofline
from harness.observations import PUBLISHED
from targets.profile import FOLDER, Fact, ProfileError, clock, load, load_all, names, text, used

ASKED_FOR = set(
    "rpizero2w rpi3bplus rpi4 rpi5 rk3588 n100 jetson_orin_nano pixel6a_tensor_g1 "  # noqa: SIM905
    "xiaomi12_sd8gen1 oneplus12_sd8gen3 oneplus13_sd8elite apple_m1 mac_mini_m4 "
    "core_ultra7_258v ryzen_8840u surface_laptop7_xelite".split()
)
GOOD = (FOLDER / "rpi5.toml").read_text(encoding="utf-8")


def broken(folder: Path, old: str, new: str) -> ProfileError:
    assert GOOD.count(old) >= 1, old
    (folder / "mine.toml").write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load("mine", folder)
    assert "\n" not in str(caught.value)
    assert "mine.toml" in str(caught.value)
    return caught.value


def test_every_device_that_people_ask_for_has_a_profile():
    assert set(names()) >= ASKED_FOR


def test_every_device_of_the_published_table_has_a_profile():
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        assert {row["device_id"] for row in csv.DictReader(file)} <= set(names())


def test_a_boost_falls_to_the_clock_of_all_cores_as_on_an_m1_max():
    """https://www.anandtech.com/show/17024: 3228, 3132, 3036 MHz with 1, 2, 3 or 4 of four."""
    cluster = load("apple_m1_max").clusters[0]
    four = replace(cluster, count=replace(cluster.count, value=4))
    for busy, seen in ((1, 3228e6), (2, 3132e6), (3, 3036e6), (4, 3036e6)):
        assert clock(four, busy) == pytest.approx(seen, rel=0.02)
    assert clock(four, 1) == 3228e6
    assert clock(four, 4) == clock(four, 5) == cluster.clock_hz.value


def test_a_core_without_a_known_boost_has_one_clock():
    cluster = load("rpi5").clusters[0]
    assert {clock(cluster, n) for n in (1, 2, 4)} == {2.4e9}


def test_a_boost_below_the_clock_is_refused(tmp_path):
    boost = 'boost_hz = { value = 1e9, kind = "measured", source = "none" }\nclock_hz'
    assert "boost_hz is 1000000000.0, must be at least clock_hz" in str(
        broken(tmp_path, "clock_hz", boost)
    )


def test_every_fact_of_every_device_names_its_source():
    for path in FOLDER.glob("*.toml"):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = [raw, raw.get("read_bandwidth", {}), raw.get("caches", {}), *raw["clusters"]]
        facts = [v for t in tables for v in t.values() if isinstance(v, dict) and "kind" in v]
        assert len(facts) >= 7, path
        for fact in facts:
            measured = fact["kind"] in ("measured", "datasheet")
            assert not (measured and "remembered" in fact["source"]), (path.name, fact)


def test_every_core_of_every_device_belongs_to_a_family():
    unknown = {
        c.core for d in load_all() for c in d.clusters if not roofline.family("core", c.core)
    }
    assert not unknown


def test_clusters_come_fastest_first():
    for device in load_all():
        peaks = [c.clock_hz.value * c.float32_per_cycle.value for c in device.clusters]
        assert peaks == sorted(peaks, reverse=True), device.name


@pytest.mark.parametrize("name", names())
def test_a_profile_written_out_reads_back_the_same(name, tmp_path):
    device = load(name)
    (tmp_path / f"{name}.toml").write_text(text(device), encoding="utf-8")
    assert load(name, tmp_path) == device


def test_a_users_folder_adds_devices_and_overrides_shipped_ones(tmp_path):
    faster = replace(load("rpi5"), summary="overclocked")
    (tmp_path / "rpi5.toml").write_text(text(faster), encoding="utf-8")
    (tmp_path / "mine.toml").write_text(GOOD, encoding="utf-8")
    assert load("rpi5", tmp_path).summary == "overclocked"
    assert "mine" in names(tmp_path)
    assert "mine" not in names()
    assert load("rpi5").summary != "overclocked"


def test_an_edited_profile_is_read_again(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert load("mine", tmp_path).idle_watts.value == 2.8
    path.write_text(GOOD.replace("value = 2.8,", "value = 3.5,"), encoding="utf-8")
    assert load("mine", tmp_path).idle_watts.value == 3.5


def test_an_unknown_device_names_close_ones():
    with pytest.raises(ProfileError, match=r"unknown device 'rpi6'; close: .*rpi5"):
        load("rpi6")


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ProfileError, match="no folder"):
        names(tmp_path / "absent")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("summary =", "summary", "not valid TOML"),
        ('category = "sbc"', "", "category is missing"),
        ('category = "sbc"', 'category = "toaster"', "category is 'toaster'"),
        ('category = "sbc"', 'category = "sbc"\nnpu = 6', "unknown key 'npu'"),
        ("bandwidth = {", "bandwidht = {", "bandwidth is missing"),
        ("value = 17100000000,", "", "bandwidth: value is missing"),
        ("value = 17100000000,", "value = 0,", "bandwidth.value is 0"),
        ("value = 17100000000,", "value = nan,", "bandwidth.value is nan"),
        ("value = 17100000000,", "value = inf,", "bandwidth.value is inf"),
        ("value = 17100000000,", 'value = "17 GB/s",', "bandwidth.value is '17 GB/s'"),
        ("value = 17100000000,", "value = true,", "bandwidth.value is True"),
        ("value = 17100000000,", "value = 5e9,", "read_bandwidth.1 is"),
        ("value = 2400000000,", "value = 100e9,", r"clusters\[0\].clock_hz.value is"),
        ("count = { value = 4,", "count = { value = 10000,", r"clusters\[0\].count.value is 10000"),
        ("count = { value = 4,", "count = { value = 2.5,", "must be a whole number"),
        ('kind = "estimated"', 'kind = "guessed"', "kind is 'guessed'"),
        ('core = "cortex-a76"', "core = 76", r"clusters\[0\].core is 76"),
        ('["neon", "fp16", "dotprod"]', '"neon"', r"clusters\[0\].isa is 'neon'"),
        ("[[clusters]]", "[[cluster]]", "clusters is missing"),
        ("l1d =", "l9 =", "caches.l9"),
        ("load_watts = { value = 11.6", "load_watts = { value = 0.7", "load_watts is 0.7"),
        ("[read_bandwidth]\n1 =", "[read_bandwidth]\nall =", "read_bandwidth.all"),
    ],
)
def test_a_broken_profile_is_refused_with_file_and_key(tmp_path, old, new, says):
    import re

    assert re.search(says, str(broken(tmp_path, old, new)))


def test_a_fact_without_a_source_is_refused(tmp_path):
    line = next(x for x in GOOD.splitlines() if x.startswith("bandwidth"))
    bare = line[: line.index(", source")] + " }"
    assert "source is missing" in str(broken(tmp_path, line, bare))
    empty = line[: line.index(", source")] + ', source = "" }'
    assert "bandwidth.source is ''" in str(broken(tmp_path, line, empty))


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="not valid TOML"):
        load("mine", tmp_path)


@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, len(GOOD) - 1), character=st.characters(max_codepoint=126))
def test_any_single_wrong_character_gives_a_profile_or_one_clear_line(
    tmp_path_factory, position, character
):
    folder = tmp_path_factory.mktemp("devices")
    spoilt = GOOD[:position] + character + GOOD[position + 1 :]
    (folder / "mine.toml").write_text(spoilt, encoding="utf-8")
    try:
        load("mine", folder)
    except ProfileError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_threads_take_the_fastest_cores_first_and_never_more_than_there_are():
    device = load("rk3588")
    assert [(c.core, n) for c, n in used(device, 5)] == [("cortex-a76", 4), ("cortex-a55", 1)]
    assert sum(n for _, n in used(device, 64)) == device.cores == 8


def test_facts_say_what_kind_they_are():
    assert isinstance(load("rpi5").bandwidth, Fact)
    assert load("rpi5").clusters[0].float32_per_cycle.kind == "measured"
