"""A checkpoint -> the float32 weights it stands for."""

from __future__ import annotations

from harness import plugins
from harness.candidates import tensors
from harness.checkpoint import stored
from harness.records import Array, Checkpoint


def unpacked(checkpoint: Checkpoint) -> dict[str, Array]:
    """Canonical name -> float32 array, whatever format each tensor is stored in.

    Raises BadCheckpoint when a tensor or a part of it is not there.
    """
    found: dict[str, Array] = {}
    for name, tensor in tensors(checkpoint.shape).items():
        parts = stored(checkpoint, name, tensor)
        if stored_as := checkpoint.formats.get(name):
            rows, columns = tensor.shape
            form = plugins.pick(plugins.formats(), stored_as, "format")
            found[name] = form.unpack(parts, (rows, columns))
        else:
            found[name] = parts[""]
    return found
