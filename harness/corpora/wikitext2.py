"""Wikipedia articles with rare words as <unk>, 2.4 MB: the valid and test files of WikiText-2.

Train is the first 90 % of the valid file and validation its last 10 %, which is enough for small
budgets; the 11 MB train file is not fetched. Test is the usual test file.
"""

from __future__ import annotations

from harness.corpora._fetch import fetch
from harness.corpora._splits import splits
from harness.records import Corpus, Splits

FOLDER = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data"
SHA256 = {
    "valid": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
}


def load() -> Splits:
    """Raises BadInput when a file is neither in EDGEWISE_DATA nor to be had."""
    valid, test = (
        fetch(f"wikitext-2/{part}.txt", f"{FOLDER}/wikitext-2/{part}.txt", sha256)
        for part, sha256 in SHA256.items()
    )
    cut = int(0.9 * len(valid))
    return splits(valid[:cut], valid[cut:], test)


SPEC = Corpus(
    name="wikitext2",
    summary="Wikipedia articles; trained on 90 % of the valid file, tested on the test file",
    load=load,
    metric="bits per byte",
    source="Merity et al. 2016; files of pytorch/examples",
)
