"""Boxes beside anchors -> places where no label covers another or a point."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float]  # left, bottom, right, top
Point: TypeAlias = tuple[float, float]

RINGS = 24  # distances tried around an anchor, each one radius further
ATTEMPTS = 8  # orders of placing tried
NEAR = 3  # rings within which a label needs no line to its anchor
SIDES = tuple(
    math.radians(angle)
    for angle in (25, -25, 155, -155, 0, 180, 45, -45, 60, -60, 120, -120, 135, -135, 90, -90)
)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """The nearest increasing positions at least `gap` apart, in the order of the given ones.

    Neighbours that collide share their deviation: isotonic regression by pooling (Ayer 1955).
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    pools: list[tuple[float, int]] = []  # mean of height - rank * gap, members
    for rank, index in enumerate(order):
        mean, count = heights[index] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            other, members = pools.pop()
            mean = (mean * count + other * members) / (count + members)
            count += members
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    placed = [0.0] * len(heights)
    for rank, index in enumerate(order):
        placed[index] = flat[rank] + rank * gap
    return placed


def beside(
    anchors: Sequence[Point],
    sizes: Sequence[Point],
    frame: Box,
    taken: Sequence[Box] = (),
    radius: float = 6.0,
) -> list[Box]:
    """A box of each size near its anchor, inside the frame, clear of all others and of `taken`.

    The nearest free place wins, the right side first. Nearer than `NEAR` radii no other anchor may
    be closer; further off, the line from the anchor to the box (which the caller draws) passes no
    other anchor and no box. A few orders of placing are tried, and the one that bends these rules
    least is kept.
    """
    best: tuple[int, list[Box]] | None = None
    for attempt in range(ATTEMPTS):
        order = list(range(len(anchors)))
        if attempt:
            random.Random(attempt).shuffle(order)
        badness, boxes = _placed(order, anchors, sizes, frame, taken, radius)
        if best is None or badness < best[0]:
            best = badness, boxes
        if badness == 0:
            break
    return best[1] if best else []


def _placed(
    order: Sequence[int],
    anchors: Sequence[Point],
    sizes: Sequence[Point],
    frame: Box,
    taken: Sequence[Box],
    radius: float,
) -> tuple[int, list[Box]]:
    """How badly the rules were bent, and a box for each anchor, placed one after another."""
    points = [_square(anchor, radius) for anchor in anchors]
    placed: dict[int, Box] = {}
    lines: list[Box] = []
    badness = 0
    for index in order:
        x, y = anchor = anchors[index]
        others = [points[i] for i in range(len(anchors)) if i != index]
        blocked = [*placed.values(), *points, *lines, *taken]
        choices: list[tuple[int, Box]] = []
        for ring, side in product(range(1, RINGS + 1), SIDES):
            box = _around(x, y, *sizes[index], ring * radius, side)
            end, bad = touch(box, anchor), 0
            if not _within(box, frame) or _hits(box, blocked):
                bad = 10
            elif ring < NEAR:
                reach = math.dist(end, anchor)
                near = (math.dist(touch(box, a), a) for i, a in enumerate(anchors) if i != index)
                bad = int(min(near, default=math.inf) <= reach + radius / 2)
            else:
                bad = int(_passes(anchor, end, [*placed.values(), *others, *lines]))
            choices.append((bad, box))
            if bad == 0:
                break
        bad, placed[index] = min(choices, key=lambda choice: choice[0])
        badness += bad
        path = _path(anchor, touch(placed[index], anchor))
        lines += [_square(place, radius / 4) for place in path]
    return badness, [placed[index] for index in range(len(anchors))]


def touch(box: Box, point: Point) -> Point:
    """The place on the box that is nearest to the point."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _square(centre: Point, side: float) -> Box:
    x, y = centre
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def _path(start: Point, end: Point) -> list[Point]:
    steps = [i / 30 for i in range(31)]
    return [(start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1])) for t in steps]


def _passes(start: Point, end: Point, boxes: Sequence[Box]) -> bool:
    """Whether the line between two points enters a box."""
    path = _path(start, end)
    return any(b[0] <= x <= b[2] and b[1] <= y <= b[3] for x, y in path for b in boxes)


def _around(x: float, y: float, width: float, height: float, reach: float, side: float) -> Box:
    """The box whose nearest edge or corner lies `reach` from the anchor in direction `side`."""
    right, up = math.cos(side), math.sin(side)
    left = x + reach * right - (0.0 if right > 0.1 else width if right < -0.1 else width / 2)
    bottom = y + reach * up - (0.0 if up > 0.5 else height if up < -0.5 else height / 2)
    return left, bottom, left + width, bottom + height


def _within(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _hits(box: Box, others: Sequence[Box]) -> bool:
    return any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in others)
