"""Plays of Shakespeare, 1.1 MB: train is the first 90 %, validation and test the last 10 %.

The usual convention has no third part, so test is the validation text.
"""

from __future__ import annotations

from harness.corpora._fetch import fetch
from harness.corpora._splits import splits
from harness.records import Corpus, Splits

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def load() -> Splits:
    """Raises BadInput when the text is neither in EDGEWISE_DATA nor to be had."""
    text = fetch("tinyshakespeare/input.txt", URL, SHA256)
    cut = int(0.9 * len(text))
    return splits(text[:cut], text[cut:], text[cut:])


SPEC = Corpus(
    name="tinyshakespeare",
    summary="plays of Shakespeare; test is the validation text (last 10 %)",
    load=load,
    metric="bits per byte",
    source=URL,
)
