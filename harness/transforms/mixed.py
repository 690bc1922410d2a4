"""Each mixer and each ffn as int8 or int4, by what int4 would cost it, within a budget of bytes.

Those in int4 are rounded as `gptq4` does. A format that follows stores embedding and head:
`mcsd:nano@mixed+int8`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from harness import plugins
from harness.records import Checkpoint, Recipe, Transform
from harness.transforms._body import compensating, matrices, stored

FINE, COARSE = "int8", "int4"
BITS = 5.5  # of a weight inside layers, at most, in the mean


def apply(
    checkpoint: Checkpoint, recipe: Recipe, progress: Callable[[str, int, int], None]
) -> Checkpoint:
    """Raises BadInput where what enters a matrix cannot be seen."""
    costs = sensitivities(checkpoint, progress)
    sizes = dict.fromkeys(costs, 0)
    for name in matrices(checkpoint.shape):
        sizes[half_of(name)] += checkpoint.arrays[name].size
    fine, forms = chosen(costs, sizes), plugins.formats()
    eased = [name for name in matrices(checkpoint.shape) if half_of(name) in fine]
    packed = {name: forms[FINE].pack(checkpoint.arrays[name]) for name in eased}
    return compensating(stored(checkpoint, FINE, packed), COARSE, progress)


def half_of(name: str) -> str:
    """layers.0.ffn.up -> layers.0.ffn"""
    return name.rpartition(".")[0]


def chosen(costs: Mapping[str, float], sizes: Mapping[str, int]) -> set[str]:
    """The halves to keep fine: what saves most a weight first, as far as the budget goes."""
    forms, fine = plugins.formats(), set[str]()
    dear, cheap = forms[FINE].bits, forms[COARSE].bits
    left = sum(sizes.values()) * (BITS - cheap)
    for half in sorted(costs, key=lambda half: -costs[half] / sizes[half]):
        if sizes[half] * (dear - cheap) <= left:
            left -= sizes[half] * (dear - cheap)
            fine.add(half)
    return fine


def sensitivities(
    checkpoint: Checkpoint, progress: Callable[[str, int, int], None]
) -> dict[str, float]:
    """What each half alone in int4 does to the model: divergence of its predictions [nats]."""
    import torch  # noqa: PLC0415

    from harness.training.distil import divergence  # noqa: PLC0415
    from harness.training.model import from_checkpoint  # noqa: PLC0415
    from harness.transforms import _calibrate  # noqa: PLC0415

    text = _calibrate.text(checkpoint)
    names, form = matrices(checkpoint.shape), plugins.formats()[COARSE]
    halves = list(dict.fromkeys(map(half_of, names)))
    found = {}
    with torch.no_grad():
        wanted = from_checkpoint(checkpoint)(text)
        for done, half in enumerate(halves):
            progress("try int4", done, len(halves))
            mine = {n: checkpoint.arrays[n] for n in names if half_of(n) == half}
            rounded = {n: form.unpack(form.pack(w), w.shape) for n, w in mine.items()}
            other = replace(checkpoint, arrays={**checkpoint.arrays, **rounded})
            found[half] = divergence(from_checkpoint(other)(text), wanted, text).item()
    return found


SPEC = Transform(
    name="mixed",
    summary=f"mixers and ffns to int4 or int8, by sensitivity, within {BITS} bits a weight",
    reshape=lambda shape: shape,
    apply=apply,
    source="greedy by sensitivity, as Dong et al. 2019 (HAWQ), by divergence instead of curvature",
    packs=COARSE,
)
