from __future__ import annotations

import dataclasses
import itertools
import math
import random
import struct
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import labels, plot
from harness.errors import BadInput
from tests import rows

LIMITS = rows.environment().limits
DEPTHS = ["attention:nano", "mcsd:nano", "attention:nano@int8", "mcsd:nano@int8"]


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def points(count, seed=0):
    source = random.Random(seed)
    found = []
    for index in range(count):
        intensity = 10 ** source.uniform(-0.5, 2)
        speed = min(intensity * 11e9, 40e9) * source.uniform(0.3, 0.9)
        found.append(
            plot.Point(
                name=f"kernel {index}", operations=intensity, bytes=1, seconds=intensity / speed
            )
        )
    return found


def spots(**changes):
    places = itertools.product(("attention", "mcsd"), ("training", "int8", "int4"))
    return [
        plot.Spot(**{
            **dict(x=(2.0**i, 1.5**i, 3.0**i), y=(1.7 - i / 10, 1.6 - i / 10, 1.8 - i / 10)),
            **dict(side=side, step=step),
            **changes,
        })
        for i, (side, step) in enumerate(places)
    ]  # fmt: skip


def curves(count=2):
    line = [(2.0**i, 1 / (i + 1), 1 / (i + 2), 1 / (i + 0.5)) for i in range(8)]
    return [plot.Curve(name=f"c{i}", group=f"c{i}", kind="", points=line) for i in range(count)]


def figures(folder):
    given_rows = rows.many(("nano",), ("host", "rpi5"), threads=(1,))
    deep = [row for row in given_rows if row.candidate in DEPTHS]
    return [
        plot.pareto_figure(given_rows, folder / "pareto"),
        plot.depth_figure(deep, folder / "depth"),
        plot.energy_figure(given_rows, folder / "energy"),
        plot.roofline_figure(points(12), LIMITS, folder / "roofline"),
        plot.tradeoff_figure(
            {"a": spots(projected=True), "b": spots()},
            folder / "tradeoff",
            cost="time a token", quality="nats", unit="s",
        ),
        plot.curves_figure(
            {"a": curves(), "b": curves(1)}, folder / "curves", x="place", y="nats",
            logarithmic=True, trained={"a": 16.0},
        ),
        plot.passage_figure(
            "To be, or not\n" * 9, [0.1, 0.3] * 63, [2.0, 0.5] * 63, folder / "passage", "who"
        ),
    ]  # fmt: skip


def test_every_figure_is_a_png_with_an_svg_and_the_same_rows_give_the_same_bytes(tmp_path):
    first, second = figures(tmp_path / "a"), figures(tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes().startswith(b"\x89PNG")
        assert struct.unpack(">I", one.read_bytes()[16:20])[0] == round(7.2 * 200)
        assert one.read_bytes() == other.read_bytes()
        assert one.with_suffix(".svg").read_bytes() == other.with_suffix(".svg").read_bytes()
    assert len(list((tmp_path / "a").iterdir())) == 14


def test_drawing_leaves_no_settings_behind(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plot.roofline_figure(points(3), LIMITS, tmp_path / "roofline")
    assert dict(mpl.rcParams) == before


def test_the_pareto_figure_names_measured_and_projected_devices(tmp_path):
    path = plot.pareto_figure(rows.many(sizes=("nano",), workloads=("tg64",)), tmp_path / "p")
    assert path.name == "p.png"


def test_figures_of_nothing_say_what_is_missing(tmp_path):
    with pytest.raises(BadInput, match="tg64"):
        plot.pareto_figure([rows.row(size="110m")], tmp_path / "x")
    with pytest.raises(BadInput, match="two depths"):
        plot.depth_figure([rows.row()], tmp_path / "x")
    with pytest.raises(BadInput, match="energy"):
        plot.energy_figure([], tmp_path / "x")
    with pytest.raises(BadInput, match="for 64 threads"):
        plot.roofline_figure(points(2), LIMITS, tmp_path / "x", threads=64)
    with pytest.raises(BadInput, match="has both nats and time"):
        plot.tradeoff_figure({"a": []}, tmp_path / "x", cost="time", quality="nats", unit="s")
    with pytest.raises(BadInput, match="nats against place"):
        plot.curves_figure({}, tmp_path / "x", x="place", y="nats")
    with pytest.raises(BadInput, match="no passage"):
        plot.passage_figure("", [], [], tmp_path / "x", "who")
    assert list(tmp_path.iterdir()) == []


def test_the_front_of_a_side_is_what_nothing_cheaper_of_it_beats():
    from harness.plot.tradeoff import front

    made = [
        plot.Spot(x=(x, x, x), y=(y, y, y), side="a", step="s")
        for x, y in ((3.0, 1.0), (1.0, 2.0), (2.0, 2.5), (1.0, 3.0), (4.0, 1.0))
    ]
    assert [(s.x[0], s.y[0]) for s in front(made, 1.0)] == [(1.0, 2.0), (3.0, 1.0)]
    assert [(s.x[0], s.y[0]) for s in front(made, -1.0)] == [(1.0, 3.0)]


def test_too_many_lines_of_depth_are_refused(tmp_path):
    with pytest.raises(BadInput, match="choose at most 8"):
        plot.depth_figure(rows.many(sizes=("nano",)), tmp_path / "x")


def test_a_candidate_without_memory_evidence_is_drawn_where_it_has_some(tmp_path):
    from harness.records import Failed

    given_rows = [rows.row(workload=w) for w in ("tg64", "tg64 @ d1024")]
    given_rows = [dataclasses.replace(r, resident=Failed(reason="not counted")) for r in given_rows]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plot.depth_figure(given_rows, tmp_path / "x").exists()


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=12),
    st.floats(0.1, 20),
)
def test_pushed_apart_heights_keep_their_order_and_gap(heights, gap):
    placed = labels.apart(heights, gap)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    for low, high in itertools.pairwise(order):
        assert placed[high] - placed[low] >= gap - 1e-9
    assert sum(placed) == pytest.approx(sum(heights), abs=1e-6)


def test_heights_that_are_apart_stay_where_they_are():
    assert labels.apart([5.0, 0.0, 20.0], 3.0) == [5.0, 0.0, 20.0]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_labels_cover_neither_each_other_nor_a_point(seed):
    source = random.Random(seed)
    anchors = [(source.uniform(50, 950), source.uniform(50, 550)) for _ in range(10)]
    anchors = [a for i, a in enumerate(anchors) if all(math.dist(a, b) > 25 for b in anchors[:i])]
    sizes = [(80.0, 14.0)] * len(anchors)
    boxes = labels.beside(anchors, sizes, (0, 0, 1000, 600))
    for a, b in itertools.combinations(boxes, 2):
        assert not overlap(a, b)
    for box, (x, y) in itertools.product(boxes, anchors):
        assert not overlap(box, (x - 3, y - 3, x + 3, y + 3))
    assert all(b[0] >= 0 and b[1] >= 0 and b[2] <= 1000 and b[3] <= 600 for b in boxes)


def test_a_crowd_of_points_still_gets_labels_that_do_not_overlap():
    anchors = [(300 + 9 * (i % 3), 300 + 11 * (i // 3)) for i in range(9)]
    boxes = labels.beside(anchors, [(90.0, 14.0)] * 9, (0, 0, 1000, 600))
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
