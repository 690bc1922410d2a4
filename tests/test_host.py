"""What the host tells about itself, on copied trees of other machines and on this one."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness import cores, doctor, host, machine, quiet
from harness.errors import HarnessError
from targets import profile

CPU = "sys/devices/system/cpu"
ROOMY = "MemTotal:        8140000 kB\nMemFree:  10 kB\nMemAvailable:    7000000 kB\n"


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def arm_cpus(parts: list[str]) -> str:
    blocks = [
        f"processor\t: {i}\nFeatures\t: fp asimd asimddp asimdhp\n"
        f"CPU implementer\t: 0x41\nCPU part\t: {part}\n"
        for i, part in enumerate(parts)
    ]
    return "\n".join(blocks)


def cache(cpu: int, index: int, kind: str, level: int, size: str, shared: str) -> dict[str, str]:
    place = f"{CPU}/cpu{cpu}/cache/index{index}"
    return {
        f"{place}/type": kind,
        f"{place}/level": str(level),
        f"{place}/size": size,
        f"{place}/shared_cpu_list": shared,
    }


@pytest.fixture
def pi5(tmp_path: Path) -> Path:
    files = {
        "proc/cpuinfo": arm_cpus(["0xd0b"] * 4) + "\nModel\t: Raspberry Pi 5 Model B Rev 1.0\n",
        "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3\n",
        "proc/meminfo": ROOMY,
        "proc/sys/kernel/hostname": "kitchen\n",
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
        f"{CPU}/online": "0-3\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "81250\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    }
    for cpu in range(4):
        files[f"{CPU}/cpu{cpu}/cpufreq/scaling_governor"] = "ondemand\n"
        files[f"{CPU}/cpu{cpu}/cpufreq/scaling_cur_freq"] = "2400000\n"
        files |= cache(cpu, 0, "Data", 1, "64K", str(cpu))
        files |= cache(cpu, 1, "Instruction", 1, "64K", str(cpu))
        files |= cache(cpu, 2, "Unified", 2, "512K", str(cpu))
        files |= cache(cpu, 3, "Unified", 3, "2048K", "0-3")
    return tree(tmp_path, files)


@pytest.fixture
def rk3588(tmp_path: Path) -> Path:
    files = {
        "proc/cpuinfo": arm_cpus(["0xd05"] * 4 + ["0xd0b"] * 4),
        "proc/self/status": "Cpus_allowed_list:\t0-7\n",
        "proc/meminfo": ROOMY,
        "proc/device-tree/model": "Radxa ROCK 5B\0",
        "proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0",
        f"{CPU}/online": "0-7\n",
    }
    for cpu in range(8):
        files[f"{CPU}/cpu{cpu}/cpu_capacity"] = "1024\n" if cpu > 3 else "414\n"
        files[f"{CPU}/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu}\n"
    return tree(tmp_path, files)


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name : AMD Ryzen 7 7840U w/ Radeon 780M Graphics\n"
        "flags : fma avx2 avx512f avx512_vnni\n",
        "proc/self/status": "Cpus_allowed_list:\t0-7\n",
        "proc/meminfo": ROOMY,
        f"{CPU}/online": "0-7\n",
        "sys/class/power_supply/BAT0/type": "Battery\n",
        "sys/class/power_supply/BAT0/status": "Discharging\n",
        "sys/class/hwmon/hwmon3/name": "k10temp\n",
        "sys/class/hwmon/hwmon3/temp1_input": "48500\n",
        "sys/class/hwmon/hwmon4/name": "nvme\n",
        "sys/class/hwmon/hwmon4/temp1_input": "70000\n",
    }
    for cpu in range(8):
        first = cpu - cpu % 2
        files[f"{CPU}/cpu{cpu}/topology/thread_siblings_list"] = f"{first}-{first + 1}\n"
        files[f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq"] = "5132000\n"
    return tree(tmp_path, files)


@pytest.fixture
def container(tmp_path: Path) -> Path:
    return tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/status": "Cpus_allowed_list:\t0-3\n",
            "proc/meminfo": ROOMY,
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": "1073741824\n",
            "sys/fs/cgroup/memory.stat": "anon 734003200\nfile 1000000\n",
        },
    )


@dataclass
class Profile:
    name: str
    recognise: tuple[str, ...]


def test_a_pi_is_described_without_a_model_name_in_cpuinfo(pi5: Path) -> None:
    found = host.describe(pi5)
    assert found.host == "kitchen"
    assert found.cpu == "4x Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"
    assert (found.cores, found.affinity) == (4, (0, 1, 2, 3))
    assert found.memory_bytes == 8140000 * 1024
    assert found.caches == {"l1d": 65536, "l2": 524288, "l3": 2097152}
    assert found.governor == "ondemand"
    assert found.clock_hz == (2.4e9,)
    assert found.temperature_celsius == (81.25,)
    assert found.versions["python"] == platform.python_version()


def test_a_pi_is_known_by_its_board(pi5: Path) -> None:
    assert host.describe(pi5).device == "rpi5"


def test_a_shared_cache_counts_once_and_private_ones_add_up(pi5: Path) -> None:
    total = machine.total_caches((0, 1, 2, 3), pi5)
    assert total == {"l1d": 65536, "l2": 4 * 524288, "l3": 2097152}


def test_a_hot_throttled_pi_is_warned_about(pi5: Path) -> None:
    text = "\n".join(doctor.warnings(host.describe(pi5), pi5))
    assert "under-voltage" in text
    assert "throttled" in text
    assert "hot: 81" in text
    assert "ondemand" in text


def test_the_end_of_a_measurement_is_noted_beside_its_start(pi5: Path) -> None:
    start = host.describe(pi5)
    tree(pi5, {f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1500000"})
    assert host.finished(start, pi5).clock_hz == (2.4e9, 1.5e9)


def test_threads_go_to_big_cores_first(rk3588: Path) -> None:
    assert cores.affinity_for(2, rk3588) == (4, 5)
    assert cores.affinity_for(5, rk3588) == (4, 5, 6, 7, 0)
    assert cores.clusters(rk3588) == (
        ("Cortex-A76", (4, 5, 6, 7)),
        ("Cortex-A55", (0, 1, 2, 3)),
    )
    assert machine.cpu_model(rk3588) == "4x Cortex-A76 + 4x Cortex-A55 (Radxa ROCK 5B)"


def test_second_hardware_threads_come_last(laptop: Path) -> None:
    assert cores.affinity_for(4, laptop) == (0, 2, 4, 6)
    assert cores.affinity_for(8, laptop) == (0, 2, 4, 6, 1, 3, 5, 7)
    assert cores.physical(cores.usable_cpus(laptop), laptop) == 4
    assert len(cores.clusters(laptop)) == 1


def test_a_restricted_affinity_is_respected(laptop: Path) -> None:
    tree(laptop, {"proc/self/status": "Cpus_allowed_list:\t1,3\n"})
    assert cores.affinity_for(2, laptop) == (1, 3)
    assert any("only CPUs (1, 3) of 8" in w for w in doctor.warnings(host.describe(laptop), laptop))
    with pytest.raises(HarnessError, match="cannot pin 3 threads"):
        cores.affinity_for(3, laptop)


def test_a_laptop_on_battery_is_warned_about(laptop: Path) -> None:
    found = host.describe(laptop)
    assert any("battery" in w for w in doctor.warnings(found, laptop))
    assert found.temperature_celsius == (48.5,)  # of the chip, not of the disk
    assert machine.isa(laptop) == ("avx2", "fma", "avx512", "avx512-vnni")


def test_a_container_gets_no_more_than_its_quota(container: Path) -> None:
    found = host.describe(container)
    assert cores.quota_cores(container) == 1.5
    assert found.cores == 1
    assert found.memory_bytes == 2**30
    assert machine.available_bytes(container) == 2**30 - 734003200
    text = "\n".join(doctor.warnings(found, container))
    assert "1.5 cores" in text
    assert "324 MiB" in text


def test_the_tightest_group_above_the_process_counts(tmp_path: Path) -> None:
    top = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "0::/user.slice/session\n",
        f"{top}/user.slice/cpu.max": "200000 100000",
        f"{top}/user.slice/session/cpu.max": "max 100000",
    }
    assert cores.quota_cores(tree(tmp_path, files)) == 2.0


def test_the_first_version_of_control_groups_is_read(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
        "proc/meminfo": ROOMY,
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912",
    }
    root = tree(tmp_path, files)
    assert cores.quota_cores(root) == 0.5
    assert machine.memory_bytes(root) == 2**29


def test_what_cannot_be_read_stays_empty(tmp_path: Path) -> None:
    found = host.describe(tmp_path)
    assert (found.host, found.device, found.cpu, found.governor) == ("", "", "", "")
    assert (found.memory_bytes, found.affinity, found.caches) == (0, (), {})
    assert (found.clock_hz, found.temperature_celsius) == ((), ())
    assert doctor.warnings(found, tmp_path) == ()


def test_the_longest_pattern_names_the_device() -> None:
    devices = [
        Profile("rpi3", ("Raspberry Pi 3 Model B*",)),
        Profile("rpi3bplus", ("Raspberry Pi 3 Model B Plus*",)),
        Profile("m1", ("Apple M1",)),
        Profile("rk3588", ("rockchip,rk3588",)),
        Profile("unknown", ()),
    ]
    assert host.recognised(["Raspberry Pi 3 Model B Rev 1.2"], devices) == "rpi3"
    assert host.recognised(["Raspberry Pi 3 Model B Plus Rev 1.3"], devices) == "rpi3bplus"
    assert host.recognised(["Radxa ROCK 5B", "rockchip,rk3588"], devices) == "rk3588"
    assert host.recognised(["Apple M1"], devices) == "m1"
    assert host.recognised(["Apple M1 Ultra"], devices) == ""
    twins = [Profile("a", ("*N100",)), Profile("b", ("*n100",))]
    assert host.recognised(["Intel(R) N100"], twins) == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Raspberry Pi 4 Model B Rev 1.5", "rpi4"),
        ("Raspberry Pi 400 Rev 1.0", "rpi400"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "rpizero2w"),
        ("rockchip,rk3588s", "rk3588"),
        ("Intel(R) N100", "n100"),
        ("13th Gen Intel(R) Core(TM) i7-13700H", "i7_13700h"),
        ("13th Gen Intel(R) Core(TM) i7-13700HX", ""),
        ("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz", "i7_8550u"),
        ("Apple M4 Max", ""),
        ("Apple M4", "mac_mini_m4"),
    ],
)
def test_shipped_profiles_are_recognised(text: str, name: str) -> None:
    assert host.recognised([text], profile.load_all()) == name


def test_systems_that_cannot_run_it_are_refused_in_one_line(tmp_path: Path) -> None:
    host.require_supported()
    with pytest.raises(HarnessError, match="32-bit") as refusal:
        host.require_supported(pointer_bytes=4)
    assert "\n" not in str(refusal.value)
    poor = tree(tmp_path, {"proc/meminfo": "MemTotal: 400000 kB\nMemAvailable: 102400 kB\n"})
    with pytest.raises(HarnessError, match="100 MiB of memory are free"):
        host.require_supported(poor)


def test_this_machine_agrees_with_psutil() -> None:
    found = host.describe()
    if hasattr(os, "sched_getaffinity"):
        assert found.affinity == tuple(sorted(os.sched_getaffinity(0)))
        assert len(host.affinity_for(len(found.affinity))) == len(found.affinity)
    assert 1 <= found.cores <= (psutil.cpu_count() or 1)
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert found.cpu


def test_a_folder_outside_a_checkout_has_no_commit(tmp_path: Path) -> None:
    assert host.checkout(tmp_path) == ("", False)


def test_an_energy_meter_is_named(tmp_path: Path) -> None:
    zone = "class/powercap/intel-rapl:0"
    files = {f"{zone}/name": "package-0", f"{zone}/energy_uj": "1000"}
    files[f"{zone}/max_energy_range_uj"] = "262143328850"
    assert doctor.meter_names(tree(tmp_path, files)) == ("package-0 (rapl)",)
    (tmp_path / zone / "energy_uj").unlink()
    (found,) = doctor.meter_names(tmp_path)
    assert "not readable" in found


def test_noise_is_told_in_words() -> None:
    still = quiet.Noise(others_cores=0.02, steal_share=0, load=0.5, cpus=4, variation=0.03)
    assert quiet.flags(still) == ()
    loud = quiet.Noise(
        others_cores=1.3, steal_share=0.04, load=6.2, cpus=4, variation=0.25, busiest=("cc1",)
    )
    assert quiet.flags(loud) == (
        "busy: 1.3 cores used by others (cc1)",
        "steal: 4% of the CPU time went to other guests",
        "load average 6.2 on 4 CPUs",
        "uneven: a fixed loop varies by 25%",
    )


def test_a_busy_neighbour_is_heard() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            noise = quiet.listen(0.6)
        finally:
            neighbour.kill()
    assert noise.others_cores > 0.3


def test_describing_the_host_loads_nothing_heavy() -> None:
    code = (
        "import sys, json, harness.doctor as d; d.describe(); "
        "print(json.dumps([m for m in ('numba', 'torch', 'pandas', 'scipy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
