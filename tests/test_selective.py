"""Groups of neurons that run, and only those: what is read, by whom, and what comes out."""

from __future__ import annotations

import numpy as np
import pytest

from harness.ffns.selective import spec as selective
from kernels import choice, matvec_f32, spec
from kernels.choice import choose, table_size, units
from kernels.selective_ffn import SPEC
from tests import models

SIZES = {"n": 6, "k": 48, "m": 40, "g": 7, "w": 32}


def drawn(seed=0, **changes):
    sizes = {**SIZES, **changes}
    return sizes, SPEC.inputs(sizes, np.random.default_rng(seed))


def product(sizes, x, scores, weights):
    (y,) = spec.call(SPEC, sizes, x, scores, weights)
    return y


def tabled(scores):
    """The table of `choose` taken apart: {group: vectors}."""
    n, g = scores.shape
    table = np.full(table_size(n, g) + 1, np.nan, np.float32)
    count = choose(np.ascontiguousarray(scores, np.float32).reshape(-1), 0, n, g, table, 0)
    assert np.isnan(table[-1])
    starts = table[g : g + count + 1].astype(int)
    vectors = table[2 * g + 1 :]
    return {
        int(table[c]): vectors[starts[c] : starts[c + 1]].astype(int).tolist() for c in range(count)
    }


@pytest.mark.parametrize("n", [1, 2, 13])
def test_the_table_says_which_vectors_each_group_runs_for(n):
    scores = np.random.default_rng(n).standard_normal((n, 9))
    scores[:, 4] = -1
    scores[:, 5] = 1
    wanted = {j: np.flatnonzero(scores[:, j] > 0).tolist() for j in range(9)}
    assert tabled(scores) == {j: vectors for j, vectors in wanted.items() if vectors}


def test_a_score_of_zero_or_nan_runs_nothing():
    assert tabled(np.array([[0.0, np.nan, 1e-30, -np.inf, np.inf]])) == {2: [0], 4: [0]}


def test_exactly_the_union_of_the_chosen_groups_is_read():
    sizes, (x, scores, weights) = drawn()
    scores[:, 2] = scores[:, 6] = -1
    scores[0, 3], scores[1:, 3] = 1, -1  # one vector is enough
    clean = product(sizes, x, scores, weights)
    for group in range(sizes["g"]):
        poisoned = weights.reshape(sizes["g"], -1).copy()
        poisoned[group].view(np.float32)[:] = np.nan
        y = product(sizes, x, scores, poisoned.reshape(-1))
        for t in range(sizes["n"]):
            if scores[t, group] > 0:
                assert np.isnan(y[t]).all()
            else:
                np.testing.assert_array_equal(y[t], clean[t])


@pytest.mark.parametrize("tokens", [1, 2, 8, 64])
@pytest.mark.parametrize("active", [0.1, 0.5])
def test_the_workload_counts_the_union_that_tokens_read(tokens, active):
    shape = models.shape(ffn="selective", hidden=1024, group=32)
    gate = next(c for c in selective.calls(shape, tokens, active) if c.weight == "gate")
    rng = np.random.default_rng(0)
    read = [len(tabled(active - rng.random((tokens, 32)))) / 32 for _ in range(400)]
    assert gate.share == pytest.approx(np.mean(read), rel=0.05)
    one = next(c for c in selective.calls(shape, 1, active) if c.weight == "gate")
    assert gate.operations == pytest.approx(tokens * one.operations, rel=1e-3)


def test_without_any_group_there_is_nothing():
    sizes, (x, scores, weights) = drawn()
    assert (product(sizes, x, -np.abs(scores) - 1, weights) == 0).all()


@pytest.mark.parametrize("n", [1, 6])
def test_with_every_group_it_is_the_dense_ffn(n):
    sizes, (x, scores, weights) = drawn(n=n)
    k, m, g, w = (sizes[name] for name in "kmgw")
    one = matvec_f32.layout_bytes(w, k)
    gate, up, down = [], [], []
    for record in weights.reshape(g, -1):
        gate.append(matvec_f32.unpack(record[:one], w, k))
        up.append(matvec_f32.unpack(record[one : 2 * one], w, k))
        down.append(matvec_f32.unpack(record[2 * one :], m, w))
    pre = x.astype(np.float64) @ np.concatenate(gate).T
    hidden = pre / (1 + np.exp(-pre)) * (x @ np.concatenate(up).T)
    wanted = hidden @ np.concatenate(down, 1).T
    found = product(sizes, x, np.abs(scores) + 1, weights)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 50])
def test_threads_share_every_row_block_of_what_runs(threads):
    """By the spans that `gather` takes: they cover each block of each group once."""
    scores = np.random.default_rng(1).standard_normal((5, 9)).astype(np.float32)
    n, g, w = 5, 9, 64
    table = np.zeros(table_size(n, g), np.float32)
    count = choose(scores.reshape(-1), 0, n, g, table, 0)
    total = units(table, 0, g, count, w)
    assert total == (scores > 0).sum() * w // 16
    seen = np.zeros((count, w // 16), int)
    for thread in range(threads):
        begin, end = total * thread // threads, total * (thread + 1) // threads
        for c in range(count):
            first, last = choice.span(table, 0, g, w, c, begin, end)
            seen[c, first:last] += 1
    assert (seen == 1).all()
