"""A commit, or the working tree as it is now -> its packages in a folder of their own.

A commit's files come from `git archive`: unlike a worktree, it leaves no trace in the repository
when the gate is killed, and needs no lock.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from harness.errors import BadInput

BASE = "EDGEWISE_GATE_BASE"  # names the commit where the caller does not
PACKAGES = ("harness", "kernels", "targets")
ROOT = Path(__file__).parents[2]


def resolve(name: str | None, root: Path = ROOT) -> str:
    """The full hash of the commit to compare with.

    Without a name: that in EDGEWISE_GATE_BASE; else on a branch, where it left main; else HEAD
    when the packages differ from it; else the commit before. Raises BadInput.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != root.resolve():
        raise BadInput(f"the gate compares commits, so it needs a git checkout; {root} is none")
    name = name or os.environ.get(BASE) or _default(root)
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found is None:
        raise BadInput(
            f"no commit {name!r} to compare with; name one with {BASE}, or fetch more history"
        )
    return found.strip()


def extract(commit: str, folder: Path, root: Path = ROOT) -> None:
    """Write the packages of that commit, as far as it has them. Raises BadInput."""
    listed = _git(root, "ls-tree", "--name-only", commit) or ""
    packages = [name for name in PACKAGES if name in listed.splitlines()]
    folder.mkdir(exist_ok=True)
    if not packages:
        return
    done = subprocess.run(
        ["git", "-C", str(root), "archive", "--format=tar", commit, *packages],
        capture_output=True,
    )
    if done.returncode:
        raise BadInput(f"cannot read commit {commit[:12]}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def copy(folder: Path, root: Path = ROOT) -> None:
    """The packages of the working tree, so that edits while the gate runs do not count."""
    unused = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in PACKAGES:
        shutil.copytree(root / name, folder / name, ignore=unused)


def _default(root: Path) -> str:
    head = _git(root, "rev-parse", "HEAD")
    fork = _git(root, "merge-base", "HEAD", "main")
    if fork and fork != head:
        return fork.strip()
    changed = _git(root, "status", "--porcelain", "--", *PACKAGES)
    return "HEAD" if changed else "HEAD~1"


def _git(root: Path, *words: str) -> str | None:
    """What git prints; None when it fails or does not exist."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
