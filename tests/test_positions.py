"""Cost by place in a window, and its drift along a text, on costs that were made up."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import BadInput
from harness.losses import Losses
from harness.positions import course, drift


def losses(nats, window, protocol="windows"):
    values = np.asarray(nats, np.float64).ravel()
    places = np.arange(values.size) + 1
    return Losses(
        protocol=protocol, window=window, nats=values, places=places, read=(places - 1) % window + 1
    )


def test_each_place_has_the_mean_over_windows_and_its_standard_error():
    found = course(losses([[4, 2, 1], [6, 2, 3]], 3))
    assert found.nats.tolist() == [5, 2, 2]
    assert found.standard_error.tolist() == [1, 0, 1]  # sample deviation over sqrt(2)
    assert found.first.tolist() == found.last.tolist() == [1, 2, 3]


def test_bins_are_means_of_a_window_first():
    found = course(losses([[4, 2, 0, 9], [6, 2, 4, 9]], 4), edges=(0, 1, 3))
    assert found.nats.tolist() == [5, 2]
    assert found.standard_error.tolist() == [1, 1]
    assert list(zip(found.first, found.last, strict=True)) == [(1, 1), (2, 3)]


def test_places_and_edges_that_make_no_sense_are_refused():
    with pytest.raises(BadInput, match="needs the windows protocol, got 'sliding'"):
        course(losses([1, 2, 3], 3, "sliding"))
    for edges in ((0, 4), (2, 1), (1, 1)):
        with pytest.raises(BadInput, match="edges must rise from 0 to at most 3"):
            course(losses([1, 2, 3], 3), edges)


def test_a_trend_is_found_and_noise_is_not_one():
    random = np.random.default_rng(0)
    n, noise = 20_000, random.normal(0, 1, 20_000)
    steady, rising = drift(losses(2 + noise, n, "carried")), drift(
        losses(2 + noise + 0.3 * np.arange(n) / n, n, "carried")
    )  # fmt: skip
    assert steady.low < 0 < steady.high
    assert rising.low < 0.3 < rising.high
    assert rising.low > 0
    assert rising.last - rising.first == pytest.approx(0.3 * 3 / 4, abs=0.05)


def test_the_interval_of_a_slope_holds_it_as_often_as_it_says():
    random = np.random.default_rng(1)
    n = 2_000
    caught = 0
    for _ in range(400):
        found = drift(losses(random.normal(0, 1, n) - 0.1 * np.arange(n) / n, n, "carried"))
        caught += found.low < -0.1 < found.high
    assert 0.92 < caught / 400 < 0.98


def test_what_the_text_itself_costs_is_taken_off():
    text = np.sin(np.arange(5_000) / 1_000)
    carried, sliding = losses(text + 1, 5_000, "carried"), losses(text + 1.1, 64, "sliding")
    found = drift(carried, sliding)
    assert found.first == pytest.approx(-0.1)
    assert found.slope == pytest.approx(0, abs=1e-9)
    with pytest.raises(BadInput, match="the same tokens"):
        drift(carried, losses(text[1:], 64))
