"""A public file -> its bytes, from the user's folder or the network, checked by SHA-256."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from harness.checkpoint import folder
from harness.errors import BadInput

DATA = "EDGEWISE_DATA"  # a folder that is looked into first
TIMEOUT_SECONDS = 30


def fetch(relative: str, url: str, sha256: str) -> bytes:
    """The content with this SHA-256.

    relative: its path below EDGEWISE_DATA, and below the user's cache once fetched
    Raises BadInput when the content is another one or cannot be had.
    """
    if root := os.environ.get(DATA):
        if not Path(root).is_dir():
            raise BadInput(f"{DATA} names {root!r}, which is not a folder")
        path = Path(root) / relative
        if path.exists():
            return _checked(path, sha256)
    return _checked(_download(relative, url, sha256), sha256)


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; see {DATA}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BadInput(
            f"{path} has SHA-256 {found[:16]}..., expected {sha256[:16]}...; replace it, or set "
            f"{DATA} to a folder with the right file"
        )
    return content


def _download(relative: str, url: str, sha256: str) -> Path:
    target = folder() / "data" / relative
    if target.exists():
        return target
    import pooch  # noqa: PLC0415 - brings requests, and only a first fetch needs it

    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=f"sha256:{sha256}",
                fname=target.name,
                path=target.parent,
                downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS),
            )
        )
    except Exception as error:
        raise BadInput(
            f"cannot fetch {url} ({type(error).__name__}); put the file at {relative} in a folder "
            f"and set {DATA} to that folder"
        ) from error
