"""Names of engines and builds as people write them -> families, years, kernels of matrices."""

from __future__ import annotations

import re

import numpy as np

from harness import roofline
from targets.profile import Device

# Kernels that llama.cpp had by when [years]: its pull requests 6414 (tiles), 9921 (repacking
# Q4_0 at load), 12332 (Q4_K)
TILED, REPACKED, REPACKED_K = 2024.3, 2024.85, 2025.25
# When its builds were tagged: (number, year)
BUILDS = (
    (1000, 2023.63), (1500, 2023.85), (2000, 2024.08), (2600, 2024.26), (3000, 2024.40),
    (3500, 2024.59), (4000, 2024.83), (4400, 2025.0), (4900, 2025.2), (5500, 2025.41),
    (6000, 2025.57), (6500, 2025.71), (7000, 2025.86), (7500, 2025.98), (8200, 2026.17),
)  # fmt: skip
COMMITS = {"14b699ec": 2024.99, "a1cfb64": 2024.7, "335acd2": 2023.6, "3891": 2024.77}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LLAMA = ("llama_2023", "llama_2024", "llama_cpp")  # generations of one engine


def engine_family(name: str, notes: list[str]) -> str:
    """The family of engines; of llama.cpp the generation by build, commit or date."""
    if not name.strip():
        notes.append("engine not stated: llama.cpp of today assumed")
        return "llama_cpp"
    family = roofline.family("engine", name) or "other"
    if family == "other":
        notes.append(f"engine {name!r} is of no known family")
    year = _year(name)
    if family in LLAMA and year is not None:
        return LLAMA[(year >= 2024) + (year >= REPACKED + 0.15)]
    return family


def kernel(name: str, family: str, form: str, device: Device) -> str:
    """How this engine, then, multiplied matrices of this format on this machine."""
    name = name.lower()
    arm = "neon" in device.clusters[0].isa
    if family in ("mnn", "executorch", "litert", "cactus"):
        return "mnn" if family == "mnn" else "xnnpack"
    if family == "ik_llama":
        return "repacked" if "-rtr" in name else "tiled"
    if "llamafile-0.6" in name or family in ("tmac", "bitnet", "rwkv", "llama_2023"):
        return "vector"
    small = form.startswith(("q4_0", "iq4_nl"))
    if "q4_0_4" in form or "q4_0_8" in form:
        return "repacked"
    year = _year(name)
    if year is None:
        year = 2025.5
    if "llamafile" in name:
        return "tiled"
    if year >= REPACKED and small and (arm or year >= REPACKED_K):
        return "repacked"
    if year >= REPACKED_K and form.startswith("q4_k"):
        return "repacked"
    tiles = small or form.startswith(("f16", "bf16", "q8_0", "q5_0", "f32"))
    return "tiled" if year >= TILED and tiles else "vector"


def _year(name: str) -> float | None:
    """When an engine's build is from, by its number, commit or date; None when it says none."""
    name = name.lower()
    for commit, year in COMMITS.items():
        if re.search(rf"\b{commit}", name):
            return year
    if build := re.search(r"\bb(\d{4,5})\b", name):
        numbers, years = zip(*BUILDS, strict=True)
        return float(np.interp(int(build[1]), numbers, years))
    if date := re.search(r"\b(20[12]\d)(?:-(\d\d))?", name):
        month = re.search(rf"\b({'|'.join(MONTHS)})[a-z]*[ -]+20[12]\d", name)
        months = int(date[2]) - 0.5 if date[2] else MONTHS.index(month[1]) + 0.5 if month else 6
        return int(date[1]) + months / 12
    return None
