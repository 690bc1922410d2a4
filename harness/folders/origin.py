"""A folder -> Origin: the hash over its files, which is computed once while they do not change."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.checkpoint import folder as cache
from harness.errors import BadCheckpoint
from harness.folders import shards
from harness.records import Origin

TOKENIZER = "tokenizer.json"


def of(folder: Path) -> Origin:
    """Of config.json, the weights and the tokenizer. Raises BadCheckpoint."""
    names = [folder / "config.json", *shards.files(folder)]
    names += [path for name in (shards.INDEX, TOKENIZER) if (path := folder / name).exists()]
    digest = hashlib.sha256()
    for path in names:
        digest.update(f"{path.name} {_hash(path)}\n".encode())
    return Origin(folder=str(folder.resolve()), files=digest.hexdigest()[:16])


def _hash(path: Path) -> str:
    """SHA-256 of a file, remembered under its place, size and time of change."""
    try:
        facts = path.stat()
        key = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"
        note = cache() / "hashes" / hashlib.sha256(key.encode()).hexdigest()[:32]
        if note.exists():
            return note.read_text("ascii")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadCheckpoint(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(found, "ascii")
    except OSError:
        pass  # without a cache the file is read again next time
    return found
