"""tokenizer.json -> text to tokens and back, by the optional tokenizers package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadCheckpoint, NoTokenizer
from harness.folders import config as configs
from harness.folders.origin import TOKENIZER


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """before: tokens its own template puts before a text
    start: what a text that is scored starts behind: those, or the model's token of beginning
    stops: tokens that end a text
    """

    library: Any  # tokenizers.Tokenizer
    before: tuple[int, ...]
    start: tuple[int, ...]
    stops: frozenset[int]


def load(folder: Path, vocabulary: int) -> Tokenizer:
    """The folder's tokenizer. Raises NoTokenizer where it or the package is not there."""
    path = folder / TOKENIZER
    if not path.exists():
        raise NoTokenizer(f"{folder} holds no tokenizer.json: speed only, no text and no quality")
    library = _open(path)
    count = library.get_vocab_size(with_added_tokens=True)
    if count > vocabulary:
        raise BadCheckpoint(f"{path} has {count} tokens, the model has {vocabulary}")
    told = configs.read(folder)
    sample = library.encode("a")
    before = tuple(sample.ids[: sample.special_tokens_mask.index(0)])
    begins, ends = (
        _ids(told.get("bos_token_id"), vocabulary),
        _ids(told.get("eos_token_id"), vocabulary),
    )
    return Tokenizer(
        library=library,
        before=before,
        start=before or begins[:1] or ends[:1],
        stops=frozenset(ends),
    )


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text alone."""
    ids: list[int] = tokenizer.library.encode(text, add_special_tokens=False).ids
    return ids


def decode(tokenizer: Tokenizer, tokens: list[int]) -> str:
    text: str = tokenizer.library.decode(tokens, skip_special_tokens=True)
    return text


def first_bytes(tokenizer: Tokenizer, text: str) -> int:
    """Bytes of the text that its first token stands for."""
    offsets = tokenizer.library.encode(text, add_special_tokens=False).offsets
    return len(text[: offsets[0][1]].encode())


def _open(path: Path) -> Any:  # noqa: ANN401 - the package has no types
    try:
        from tokenizers import Tokenizer as Library  # noqa: PLC0415
    except ImportError:
        raise NoTokenizer(
            "text needs the tokenizers package: pip install 'edgewise[tokenizers]'"
        ) from None
    try:
        library = Library.from_file(str(path))
        library.no_truncation()
        library.no_padding()
        library.encode("a").special_tokens_mask.index(0)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        reason = str(error).partition("\n")[0]
        raise BadCheckpoint(f"{path} is no valid tokenizer: {reason}") from None
    return library


def _ids(value: object, vocabulary: int) -> tuple[int, ...]:
    """One token id or a list of them; what is none is left out."""
    values = value if isinstance(value, list) else [value]
    return tuple(v for v in values if type(v) is int and 0 <= v < vocabulary)
