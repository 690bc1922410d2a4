"""The imported package `kernels` -> nothing when it is ours, one clear error when it is not."""

from __future__ import annotations

import kernels
from harness.errors import BadPlugin


def refuse() -> None:
    """Raise BadPlugin when another package of that name comes first on the import path."""
    if getattr(kernels, "OWNER", "") == "edgewise":
        return
    found = getattr(kernels, "__file__", None) or next(iter(kernels.__path__), "an unknown place")
    raise BadPlugin(
        f"the package 'kernels' found at {found} is not Edgewise's; "
        "uninstall the other one, or install Edgewise into an environment of its own"
    )
