"""Python's own language reference, as shipped in `pydoc_data.topics`: always at hand.

The text differs between Python releases, so a topic's split follows from its key alone and every
result carries the hash. Topics repeat each other's sections: a paragraph of the training text
that also occurs in a held-out topic is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from harness.corpora._splits import splits
from harness.records import Corpus, Splits

SEPARATOR = "\n\n\n"  # between topics
LONG = 40  # characters; shorter paragraphs ("See also:") may repeat


def load() -> Splits:
    """The topics of the running Python, about 80/10/10."""
    from pydoc_data.topics import topics  # noqa: PLC0415 - half a megabyte of source

    return of_topics(topics)


def of_topics(topics: Mapping[str, str]) -> Splits:
    """Topics by split in the order of their keys, without what a held-out one repeats."""
    by_split: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for key in sorted(topics):
        by_split[split_of(key)].append(topics[key])
    test = by_split["test"]
    validation = [_without(topic, _paragraphs(test)) for topic in by_split["validation"]]
    held_out = _paragraphs(validation) | _paragraphs(test)
    train = [_without(topic, held_out) for topic in by_split["train"]]
    return splits(*(SEPARATOR.join(texts).encode() for texts in (train, validation, test)))


def split_of(key: str) -> str:
    """The split of a topic: 8 in 10 keys train, one each validation and test."""
    last = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10
    return {8: "validation", 9: "test"}.get(last, "train")


def _paragraphs(texts: list[str]) -> set[str]:
    return {_plain(p) for text in texts for p in text.split("\n\n") if len(_plain(p)) >= LONG}


def _without(text: str, paragraphs: set[str]) -> str:
    return "\n\n".join(p for p in text.split("\n\n") if _plain(p) not in paragraphs)


def _plain(paragraph: str) -> str:
    """Words only: a nested section repeats another one with a different indent."""
    return " ".join(paragraph.split())


SPEC = Corpus(
    name="pydocs",
    summary="Python's language reference; built in, split by topic",
    load=load,
    metric="bits per byte",
    source="pydoc_data.topics of the running Python",
)
