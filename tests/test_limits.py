"""The measured limits of this machine, against NumPy and plain reason."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness import doctor, host, limits
from harness.cores import usable_cores
from harness.errors import HarnessError
from targets import profile


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("limits")


@pytest.fixture(scope="module")
def samples(folder: Path) -> limits.Samples:
    return limits.cached(9.0, folder)


def test_thread_counts_are_powers_of_two_and_all() -> None:
    assert limits.thread_counts(1) == (1,)
    assert limits.thread_counts(4) == (1, 2, 4)
    assert limits.thread_counts(6) == (1, 2, 4, 6)


def test_every_limit_of_one_thread_is_measured(samples: limits.Samples) -> None:
    names = {"clock_hz", "float32_ops_per_s", "int8_ops_per_s", "read_bytes_per_s"}
    assert {f"{name}.1" for name in names} <= set(samples)
    assert f"read_bytes_per_s.{usable_cores()}" in samples
    assert all(min(rounds) > 0 for rounds in samples.values())


def test_a_core_does_a_plausible_number_of_operations_a_cycle(samples: limits.Samples) -> None:
    found = limits.medians(samples)
    assert 2e8 < found["clock_hz.1"] < 8e9
    # from 2 lanes of one unit to 16 lanes of two; a noisy moment costs some of it
    assert 1 < found["float32_ops_per_s.1"] / found["clock_hz.1"] < 80
    assert found["int8_ops_per_s.1"] > 0.5 * found["float32_ops_per_s.1"]


def test_numpy_reads_memory_no_faster_than_the_limit(samples: limits.Samples) -> None:
    values = np.ones(limits.DRAM_BYTES // 4, np.float32)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        values.max()
        seconds.append(time.perf_counter() - start)
    assert values.nbytes / min(seconds) < 2.5 * max(samples["read_bytes_per_s.1"])


def test_limits_are_kept_for_an_hour(samples: limits.Samples, folder: Path) -> None:
    start = time.perf_counter()
    assert limits.cached(9.0, folder) == samples
    assert time.perf_counter() - start < 1


def test_a_damaged_cache_is_not_trusted(folder: Path, samples: limits.Samples) -> None:
    (file,) = folder.iterdir()
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    assert limits.cached(0.0, folder) == {}
    file.write_text(whole)
    assert limits.cached(0.0, folder) == samples


def test_the_written_profile_is_read_back(samples: limits.Samples, tmp_path: Path) -> None:
    here = replace(host.describe(), limits=limits.medians(samples))
    report = doctor.Report(
        environment=here, samples=samples, noise=("busy",), meters=(), warnings=()
    )
    (tmp_path / "mine.toml").write_text(doctor.device_toml(report))
    device = profile.load("mine", tmp_path)
    fact = device.read_bandwidth[1]
    assert fact.value == round(here.limits["read_bytes_per_s.1"])
    assert fact.kind == "measured"
    assert fact.source.startswith("edgewise doctor on 20")
    assert fact.source.endswith("(disturbed: busy)")
    assert host.describe(devices=tmp_path).device == "mine"


def test_a_core_that_is_faster_alone_gets_a_boost(samples: limits.Samples, tmp_path: Path) -> None:
    here = host.describe()
    known = {**limits.medians(samples), "clock_hz.1": 3e9, f"clock_hz.{here.cores}": 2.4e9}
    if any(key.startswith("clock_hz.cpu") for key in known):
        pytest.skip("kinds of cores differ: only their clocks under common load are measured")
    report = doctor.Report(
        environment=replace(here, limits=known), samples=samples, noise=(), meters=(), warnings=()
    )
    (tmp_path / "mine.toml").write_text(doctor.device_toml(report))
    (cluster,) = profile.load("mine", tmp_path).clusters
    assert (cluster.clock_hz.value, cluster.boost_hz and cluster.boost_hz.value) == (2.4e9, 3e9)


def test_a_profile_without_measured_limits_is_refused() -> None:
    report = doctor.Report(
        environment=host.describe(), samples={}, noise=(), meters=(), warnings=()
    )
    with pytest.raises(HarnessError, match="was not measured"):
        doctor.device_toml(report)
