"""The calls of a forward pass -> those of one optimiser step, and the bytes that it holds.

Backward takes each product twice, once for what came in and once for the weight, and so twice the
operations; it reads what the forward pass kept. AdamW then reads gradients, weights and two
moments, and writes the latter three. All is float32.

Sizes: b windows of n tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.records import Call

VALUE = 4  # bytes
# AdamW as Loshchilov & Hutter 2019 write it, with the norm that clips: to the norm 2, to clip 1,
# both moments 7, decay 2, the step 5.
OPERATIONS = 17
# Gradients read three times (norm, clipping, step) and written once, weights and moments both.
MOVED = VALUE * (3 + 1 + 3 + 3)
# What of its activations a call puts out, and keeps besides; others put out half of them.
KEPT = {"glu": 2 / 3, "mcsd": 1 / 5}  # the gated half and the product of three; y of u v f e y


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes of one step: all of them at once where backward begins, but for gradients, which come
    as what was kept goes."""

    weights: int
    gradients: int
    moments: int
    kept: int  # what the forward pass leaves for backward

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.kept


def held(parameters: int, forward: Sequence[Call], tokens: int, besides: int) -> Held:
    """What a step over so many tokens holds; besides: values kept that no call puts out."""
    kept = sum(call.count * kept_bytes(call) for call in forward)
    targets = 8 * 2 * tokens  # and inputs, whole numbers of 8 bytes
    each = VALUE * parameters
    return Held(
        weights=each, gradients=each, moments=2 * each, kept=kept + targets + VALUE * besides
    )


def kept_bytes(call: Call) -> int:
    """What one call leaves for backward: what it puts out, which is what the next one takes in."""
    if call.weight:
        return VALUE * call.sizes["n"] * call.sizes["m"]
    return round(call.activation_bytes * KEPT.get(call.kernel, 1 / 2))


def batched(calls: Iterable[Call], b: int) -> tuple[Call, ...]:
    """Calls over one window -> over b of them: products of a weight take all tokens together."""
    found = []
    for call in calls:
        size = {"n": b * call.sizes["n"]} if "n" in call.sizes else {}
        found.append(
            replace(
                call,
                sizes={**call.sizes, **size},
                operations=b * call.operations,
                activation_bytes=b * call.activation_bytes,
                state_bytes=0,  # keys and values are activations here
            )
        )
    return tuple(found)


def step(forward: Sequence[Call], parameters: int) -> tuple[Call, ...]:
    """Forward, backward and update. What is kept counts as state: written, then read."""
    there = [replace(call, state_bytes=kept_bytes(call)) for call in forward]
    back = [replace(call, operations=2 * call.operations, weight_bytes=2 * call.weight_bytes)
            for call in there]  # fmt: skip
    update = Call(
        kernel="adamw",
        sizes={"n": parameters},
        count=1,
        operations=OPERATIONS * parameters,
        state_bytes=MOVED * parameters,
    )
    return (*there, *back, update)
