"""llama.cpp by the low-level calls of llama-cpp-python, on weights exported level for level.

It runs as its users run it: weights repacked where it can, loaded and attended to as it chooses,
and the logits of each step fetched. `about` and `LlamaCpp.chosen` state all of that.
"""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from harness import export
from harness.errors import BadInput
from harness.records import Array, Checkpoint, Engine

if TYPE_CHECKING:
    from llama_cpp import llama_batch

BATCH = 512  # tokens of one call, and of one piece of it: the whole of pp512
CACHES = {"f32": "GGML_TYPE_F32", "f16": "GGML_TYPE_F16", "int8": "GGML_TYPE_Q8_0"}
INFORMATION = 2  # of ggml_log_level; below it is debugging
# What the library says while it loads, and how a table puts it.
FACTS = (
    (re.compile(r"CPU_REPACK model buffer size = +(.+)"), "repacked {}"),
    (re.compile(r"CPU(?:_Mapped)? model buffer size = +(.+)"), "as stored {}"),
    (re.compile(r"load_mode = (\w+)"), "loaded by {}"),
    (re.compile(r"Flash Attention (enabled|not supported)", re.IGNORECASE), "flash attention {}"),
    (re.compile(r"enabling flash_attn (.+)"), "flash attention enabled, {}"),
    (re.compile(r"K \((\w+)\)"), "cache {}"),
)


class LlamaCpp:
    """A GGUF file ready to run, with the context it has seen so far; an `Opened`.

    room: tokens that fit; cache: how keys and values are kept, "f16" as the library does unasked.
    Raises BadInput when the library is missing or cannot load the file.
    """

    def __init__(self, path: Path, *, room: int, threads: int = 1, cache: str = "f16") -> None:
        library, said, _ = _library()
        said.clear()
        options = library.llama_model_default_params()
        options.n_gpu_layers = 0
        options.use_extra_bufts = (
            True  # repacked weights: the default, but a comparison hangs on it
        )
        model = library.llama_model_load_from_file(str(path).encode(), options)
        if not model:
            raise BadInput(f"llama.cpp cannot load {path}: {_complaint(said)}")
        wanted = library.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = room, BATCH, BATCH
        wanted.n_threads = wanted.n_threads_batch = threads
        wanted.type_k = wanted.type_v = getattr(library, CACHES[cache])
        context = library.llama_init_from_model(model, wanted)
        if not context:
            library.llama_model_free(model)
            raise BadInput(f"llama.cpp cannot run {path}: {_complaint(said)}")
        self._library, self._model, self._context = library, model, context
        self._memory = library.llama_get_memory(context)
        self.batch = min(BATCH, library.llama_n_batch(context))
        # The batch of a step, made once, so that timing a step times no Python objects.
        self._token = (library.llama_token * 1)()
        self._one = library.llama_batch_get_one(self._token, 1)
        self._row_at, self._row = 0, np.empty(0, np.float32)
        self.name, self.room, self.depth, self.closed = path.stem, room, 0, False
        self.vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        self.chosen = _chosen(said)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def feed(self, tokens: Sequence[int] | Array, every: bool = False) -> Array:
        """Read tokens; returns the logits after the last one (vocabulary,), or after each one.

        With `every`, (n, vocabulary). The array is the caller's. Raises BadInput as ours does.
        """
        values = self._check(np.asarray(tokens))
        flags = (ctypes.c_int8 * self.batch)(*[1] * self.batch)
        out = []
        for start in range(0, values.size, self.batch):
            part = np.ascontiguousarray(values[start : start + self.batch])
            pointer = part.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            batch = self._library.llama_batch_get_one(pointer, part.size)
            if every:
                batch.logits = ctypes.cast(flags, type(batch.logits))
            self._decode(batch, part.size)
            if every:
                out.append(self._logits(part.size).copy())
        return np.concatenate(out) if every else self._logits(1)[0].copy()

    def step(self, token: int) -> Array:
        """One decode step for timing: the library's own array of logits, not a copy."""
        self._token[0] = token
        self._decode(self._one, 1)
        pointer = self._library.llama_get_logits(self._context)
        if (at := ctypes.addressof(pointer.contents)) != self._row_at:
            self._row_at, self._row = at, np.ctypeslib.as_array(pointer, (self.vocabulary,))
        return self._row

    def reset(self) -> None:
        """Forget the context."""
        self._library.llama_memory_clear(self._memory, False)
        self.depth = 0

    def rewind(self, depth: int) -> None:
        """Forget what came after the first `depth` tokens. Raises BadInput for more than it has."""
        if depth > self.depth:
            raise BadInput(f"{self.name} has seen {self.depth} tokens, not {depth}")
        self._library.llama_memory_seq_rm(self._memory, 0, depth, -1)
        self.depth = depth

    def close(self) -> None:
        """Free the model; safe to call twice."""
        if not self.closed:
            self._library.llama_free(self._context)
            self._library.llama_model_free(self._model)
            self.closed = True

    def _check(self, values: Array) -> Array:
        """The tokens as the library takes them; what it would end the process for is refused."""
        if self.closed:
            raise BadInput(f"the session of {self.name} is closed; open another one")
        if values.ndim != 1 or values.size == 0:
            raise BadInput(f"tokens must be one non-empty row, got shape {values.shape}")
        if values.min() < 0 or values.max() >= self.vocabulary:
            raise BadInput(f"tokens must be in 0..{self.vocabulary - 1}")
        if self.depth + values.size > self.room:
            raise BadInput(
                f"{self.depth} + {values.size} tokens do not fit a context of {self.room}; "
                f"open the session with more room"
            )
        return values.astype(np.int32)

    def _decode(self, batch: llama_batch, count: int) -> None:
        code = self._library.llama_decode(self._context, batch)
        if code:  # 1: the context is full
            raise BadInput(f"llama.cpp failed on {self.name} at depth {self.depth}, code {code}")
        self.depth += count

    def _logits(self, count: int) -> Array:
        """The library's logits (count, vocabulary), once they are computed."""
        pointer = self._library.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (count, self.vocabulary))


def open_checkpoint(checkpoint: Checkpoint, room: int, threads: int, form: str = "") -> LlamaCpp:
    """A checkpoint by way of a temporary file. Raises BadInput for what cannot be exported."""
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        path = Path(folder) / "model.gguf"
        export.export(checkpoint, path)
        # A mapped file stays readable after its name is gone.
        return LlamaCpp(path, room=room, threads=threads, cache=form or checkpoint.shape.cache)


def about() -> str:
    """Version, build flags and how it waits, in one line. Raises BadInput when it is missing."""
    library = _library()[0]
    import llama_cpp  # noqa: PLC0415

    on = re.findall(r"(\w+) = 1", library.llama_print_system_info().decode())
    waits = "OpenMP's barriers" if "OPENMP" in on else "its own spinning barriers"
    return (
        f"llama-cpp-python {llama_cpp.__version__}, built with {' '.join(on)}; weights repacked "
        f"where it has a form for them; threads pinned, waiting in {waits}"
    )


@cache
def _library() -> tuple[ModuleType, deque[str], object]:
    """The low-level module, the last lines that it logged instead of printing them, and the
    function that it calls for that as long as the process lives.
    """
    try:
        import llama_cpp.llama_cpp as library  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise BadInput(f"llama.cpp is not installed ({error}); `nox -s peers` builds it") from None
    said: deque[str] = deque(maxlen=1000)

    def listen(level: int, text: bytes, _: object) -> None:
        if level >= INFORMATION:
            said.append(text.decode("utf-8", "replace").strip())

    listener = library.llama_log_callback(listen)
    library.llama_log_set(listener, ctypes.c_void_p(0))
    return library, said, listener


def _chosen(said: Sequence[str]) -> str:
    """What the library made of the model, in its own numbers."""
    lines = ((text, next(filter(None, map(pattern.search, said)), None)) for pattern, text in FACTS)
    return "; ".join(text.format(found[1].strip()) for text, found in lines if found)


def _complaint(said: Sequence[str]) -> str:
    """The last line that names an error."""
    lines = [line for line in said if "error" in line or "failed" in line]
    return lines[-1] if lines else "no reason given"


SPEC = Engine(
    name="llama_cpp",
    summary="llama.cpp, built for this machine, on the very levels of our weights",
    packages=("llama_cpp", "gguf"),
    forms={
        "": "the ggml types of the checkpoint's format and cache",
        "f16": "the same, keys and values in float16",
        "int8": "the same, keys and values as Q8_0",
    },
    about=about,
    open=open_checkpoint,
    source="https://github.com/ggml-org/llama.cpp",
)
