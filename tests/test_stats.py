from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import binom

from harness import stats


def samples(count: int, seed: int = 0) -> list[float]:
    source = random.Random(seed)
    return [source.lognormvariate(0, 0.3) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 9, 30, 31])
def test_the_median_is_that_of_numpy(count):
    assert stats.median(samples(count)) == pytest.approx(np.median(samples(count)), rel=1e-15)


@pytest.mark.parametrize("count", [10, 11, 60])
def test_p90_is_that_of_numpy(count):
    assert stats.p90(samples(count)) == pytest.approx(np.quantile(samples(count), 0.9))


def test_p90_of_nine_samples_is_withheld_with_the_reason():
    summary = stats.summary(samples(9))
    assert summary.p90 is None
    assert summary.p90_note == "n = 9; p90 needs 10"


@pytest.mark.parametrize("count", [6, 7, 10, 30, 61, 300, 999, 1000, 5000])
def test_the_interval_is_the_narrowest_that_covers_the_median(count):
    ordered = list(map(float, range(1, count + 1)))
    low, high, note = stats.median_interval(ordered)
    rank = int(low)
    assert (high, note) == (count + 1 - rank, "")
    assert 1 - 2 * binom.cdf(rank - 1, count, 0.5) >= 0.95 - 1e-3
    assert 1 - 2 * binom.cdf(rank, count, 0.5) < 0.95 + 1e-3


def test_the_interval_covers_the_true_median_in_95_of_100_experiments():
    hits = 0
    for seed in range(400):
        low, high, _ = stats.median_interval(samples(15, seed))
        hits += low <= 1.0 <= high
    assert hits / 400 >= 0.93


def test_five_samples_give_their_range_and_say_so():
    assert stats.median_interval([5, 1, 2, 3, 4]) == (1, 5, "n = 5; a 95 % interval needs 6")


def test_steady_samples_carry_no_flag():
    assert stats.flags([1.0, 1.01, 0.99, 1.02, 1.0, 0.98] * 4) == ()


def test_wide_samples_are_flagged_with_their_spread():
    values = [1.0, 1.3, 0.8, 1.2, 0.9, 1.1]
    spread = np.std(values, ddof=1) / np.mean(values)
    assert stats.flags(values) == (f"spread {100 * spread:.0f} %",)


def test_one_slow_sample_is_flagged():
    assert "slowest +80 %" in stats.flags([1.0] * 20 + [1.8])


def test_a_machine_that_heats_up_is_flagged_as_drifting():
    assert stats.flags([1.0, 1.01] * 6 + [1.08, 1.09] * 6) == ("drift +8 %",)


def test_a_single_counted_value_is_its_own_interval():
    summary = stats.summary([42.0])
    assert (summary.low, summary.median, summary.high, summary.flags) == (42.0, 42.0, 42.0, ())


def test_no_samples_are_an_error():
    with pytest.raises(ValueError, match="no samples"):
        stats.summary([])


def test_a_shifted_distribution_is_significant_and_the_same_one_is_not():
    base = samples(30, 1)
    assert stats.mann_whitney(base, [s * 1.5 for s in base]) < 0.01
    assert stats.mann_whitney(base, samples(30, 2)) > 0.05


def test_equal_constants_do_not_differ():
    assert stats.mann_whitney([1.0] * 5, [1.0] * 5) == 1.0
