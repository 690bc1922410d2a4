"""References against independent readings of the same equations, most of them in plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness import autograd, plugins
from harness.ffns.hash import engine as hash_engine
from harness.ffns.hash import reference as hashed
from harness.ffns.moe import reference as moe
from harness.ffns.relu import reference as relu
from harness.ffns.selective import reference as selective
from harness.ffns.threshold import reference as threshold
from harness.mixers.attention import reference as attention
from harness.mixers.attention.spec import slopes
from harness.mixers.mcsd import memory as mcsd
from harness.mixers.mcsd import reference as mcsd_layer
from harness.records import Shape

HALVES = [
    *(pytest.param(m, id=m.name) for m in plugins.mixers().values()),
    *(pytest.param(f, id=f.name) for f in plugins.ffns().values()),
]


def shape(**changes: object) -> Shape:
    settings = dict(
        vocabulary=256, width=32, layers=1, mixers=("mcsd",), ffn="dense", hidden=64, heads=4,
        kv_heads=2, head_width=8, channels=4, context=64, group=16,
    )  # fmt: skip
    return Shape(**{**settings, **changes})


def built(plugin, seed=0):
    torch.manual_seed(seed)
    return plugins.half(plugin, "reference").build(shape(), **getattr(plugin, "options", {}))


def memories(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(16, n, 2, 3, dtype=torch.float64)
    rates = np.concatenate([mcsd_layer.paper_slopes(8), mcsd_layer.paper_decays(8)])
    return x, torch.log(torch.tensor(rates))


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 131])
def test_matrix_chunked_and_recurrent_memories_agree(n):
    x, log_rates = memories(n)
    matrix = mcsd.read_matrix(x, log_rates)
    torch.testing.assert_close(mcsd.read_chunked(x, log_rates), matrix, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mcsd.read_chunked(x, log_rates, q=7), matrix, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mcsd.read_recurrent(x, log_rates), matrix, rtol=1e-12, atol=1e-12)


def test_memories_with_very_fast_rates_agree_and_have_finite_gradients():
    x, _ = memories(300)
    logits = torch.linspace(-12, 12, 16, dtype=torch.float64, requires_grad=True)
    matrix = mcsd.read_matrix(x, F.logsigmoid(logits))
    chunked = mcsd.read_chunked(x, F.logsigmoid(logits))
    torch.testing.assert_close(chunked, matrix, rtol=1e-10, atol=1e-10)
    first = torch.autograd.grad(matrix.square().sum(), logits)[0]
    second = torch.autograd.grad(chunked.square().sum(), logits)[0]
    assert first.isfinite().all()
    torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


def test_memories_are_the_papers_matrices():
    """Eq. 2, 3, 8 and 9 as printed: a softmax of distances, and powers of a decay."""
    n, c = 20, 8
    x, log_rates = memories(n)
    read = mcsd.read_matrix(x, log_rates)
    distance = np.arange(n)[:, None] - np.arange(n)
    for i in range(c):
        beta = (2.0 ** (-8 / c)) ** (i + 1)
        scores = np.where(distance > 0, -distance * beta, -np.inf)
        scores[0, 0] = 1
        slopes = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        decays = np.where(distance > 0, (1 - 2.0 ** (-5 - i)) ** distance.clip(0), 0.0)
        decays[0, 0] = 1
        for matrix, memory in ((slopes, i), (decays, c + i)):
            wanted = np.einsum("tj,jbw->tbw", matrix, x[memory].numpy())
            np.testing.assert_allclose(read[memory].numpy(), wanted, rtol=1e-12)


def test_constants_are_those_of_the_papers_table():
    """C = 10, the 1.6B and 3B models."""
    slopes, decays = mcsd_layer.paper_slopes(10), mcsd_layer.paper_decays(10)
    np.testing.assert_allclose(slopes[[0, 3, 9]], [0.563071, 0.896893, 0.996101], atol=5e-7)
    np.testing.assert_array_equal(decays[[0, 1, 9]], [0.96875, 0.984375, 0.99993896484375])
    beta_12 = -np.log(mcsd_layer.paper_slopes(12))
    np.testing.assert_allclose(beta_12[[0, 11]], [0.629961, 2.0**-8], atol=5e-7)


def test_fixed_rates_are_the_papers_and_learned_ones_start_faster():
    for name in ("mcsd", "mcsd-fixed", "mcsd-paper"):
        layer = built(plugins.mixers()[name])
        found, learned = layer.export(), name == "mcsd"
        assert any("logits" in n for n, _ in layer.named_parameters()) == learned
        for key, paper in (("slope", mcsd_layer.paper_slopes), ("decay", mcsd_layer.paper_decays)):
            if learned:
                assert (found[key] < paper(4)).all()
                assert (np.diff(found[key]) > 0).all()
            else:
                np.testing.assert_array_equal(found[key], np.float32(paper(4)))


def numpy_mcsd(t: dict[str, np.ndarray], x: np.ndarray, channels: int) -> np.ndarray:
    """Token by token in float64, x (n,width) -> (n,width), as the equations are written."""
    width = x.shape[1]
    w = width // channels
    t = {name: a.astype(np.float64) for name, a in t.items()}
    a, alpha = t["slope"].repeat(w), t["decay"].repeat(w)
    z, s, d = np.zeros(width), np.zeros(width), np.zeros(width)
    out = []
    for i, h in enumerate(x):
        if t["u"].shape[1] == width:
            u, v, f, e = (t[name] @ h for name in "uvfe")
        else:
            rows = h.reshape(channels, w).repeat(w, axis=0)
            u, v, f, e = ((t[name] * rows).sum(1) for name in "uvfe")
        past_v, past_e = (v, e) if i == 0 else (s, d)
        mean = (past_e.reshape(channels, w) ** 2).mean(1).repeat(w)
        gate = 1 / (1 + np.exp(-f))
        y = u * past_v / (1 + np.exp(-past_v))
        y = y + gate * past_e / np.sqrt(mean + 1e-6) * t["gain"]
        out.append(t["o"] @ y if "o" in t else y)
        z = a * z + 1
        s = s + (v - s) / z
        d = alpha * (d + e)
    return np.array(out)


@pytest.mark.parametrize("name", ["mcsd", "mcsd-paper"])
@pytest.mark.parametrize("n", [1, 20, 150])
def test_mcsd_is_its_equations_token_by_token(name, n):
    layer = built(plugins.mixers()[name])
    with torch.no_grad():
        layer.gain.uniform_(0.5, 1.5)
    arrays = layer.export()
    x = np.random.default_rng(n).normal(size=(2, n, 32))
    with torch.no_grad():
        found = layer.double()(torch.from_numpy(x)).numpy()
    for i in range(2):
        wanted = numpy_mcsd(arrays, x[i], 4)
        np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-6)


def numpy_attention(t: dict[str, np.ndarray], x: np.ndarray, s: Shape) -> np.ndarray:
    """One head and one query at a time; rotation by complex numbers, or none beside slopes."""
    n, w = len(x), s.head_width
    t = {name: a.astype(np.float64) for name, a in t.items()}
    angle = np.arange(n)[:, None] * s.rope_base ** (-2 * np.arange(w // 2) / w)

    def turned(y: np.ndarray) -> np.ndarray:
        if "slopes" in t:
            return y
        z = (y[:, : w // 2] + 1j * y[:, w // 2 :]) * np.exp(1j * angle)
        return np.concatenate([z.real, z.imag], axis=1)

    heads = []
    for h in range(s.heads):
        g = h * s.kv_heads // s.heads
        q = turned(x @ t["q"][h * w : (h + 1) * w].T)
        k = turned(x @ t["k"][g * w : (g + 1) * w].T)
        v = x @ t["v"][g * w : (g + 1) * w].T
        rows = []
        for i in range(n):
            bias = t["slopes"][h] * np.arange(-i, 1) if "slopes" in t else 0.0
            weights = np.exp(k[: i + 1] @ q[i] / math.sqrt(w) + bias)
            rows.append(weights @ v[: i + 1] / weights.sum())
        heads.append(np.array(rows))
    return np.concatenate(heads, axis=1) @ t["o"].T


@pytest.mark.parametrize("alibi", [False, True])
def test_attention_is_its_equations_head_by_head(alibi):
    layer = attention.build(shape(), alibi)
    arrays = layer.export()
    x = np.random.default_rng(0).normal(size=(1, 19, 32))
    with torch.no_grad():
        found = layer.double()(torch.from_numpy(x)).numpy()[0]
    np.testing.assert_allclose(found, numpy_attention(arrays, x[0], shape()), rtol=1e-9, atol=1e-12)


def test_slopes_of_linear_biases_are_those_of_the_paper():
    """Press et al. 2021: 1/2, 1/4, ..., 1/256 for 8 heads; of 16 the geometric means between."""
    np.testing.assert_array_equal(slopes(8), 0.5 ** np.arange(1, 9))
    np.testing.assert_allclose(slopes(16), 0.5 ** np.arange(0.5, 8.5, 0.5))
    np.testing.assert_allclose(slopes(12), [*0.5 ** np.arange(1, 9), *0.5 ** np.arange(0.5, 4.5)])
    layer = attention.build(shape(), alibi=True)
    np.testing.assert_array_equal(layer.export()["slopes"], np.float32([0.25, 2**-4, 2**-6, 2**-8]))
    assert not any("slopes" in name for name, _ in layer.named_parameters()), "fixed"


@pytest.mark.parametrize("plugin", HALVES)
def test_no_token_sees_a_later_one(plugin):
    layer = built(plugin).eval()
    x = torch.randn(1, 140, 32)
    with torch.no_grad():
        before = layer(x)
        x[0, 70:] = torch.randn(70, 32) * 100
        after = layer(x)
    assert torch.equal(before[0, :70], after[0, :70])
    assert not torch.equal(before[0, 70:], after[0, 70:])


@pytest.mark.parametrize("plugin", HALVES)
def test_exported_tensors_are_those_of_the_spec_and_come_back_bit_for_bit(plugin):
    layer = built(plugin)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    found = layer.export()
    assert {n: a.shape for n, a in found.items()} == {
        t.name: t.shape for t in plugin.tensors(shape())
    }
    assert all(a.dtype == np.float32 for a in found.values())
    other = built(plugin, seed=1)
    other.load(found)
    for name, array in other.export().items():
        np.testing.assert_array_equal(array, found[name], err_msg=name)


def test_selective_runs_exactly_the_groups_that_score_above_zero():
    layer = selective.build(shape(ffn="selective")).eval()
    with torch.no_grad():
        layer.selector_bias.normal_()
    t = {name: a.astype(np.float64) for name, a in layer.export().items()}
    x = np.random.default_rng(0).normal(size=(30, 32))
    seen = set()
    for i, h in enumerate(x):
        score = t["selector_out"] @ (t["selector_in"] @ h) + t["selector_bias"]
        rows = [g * 16 + j for g in range(4) if score[g] > 0 for j in range(16)]
        gate = t["gate"][rows] @ h
        wanted = t["down"][:, rows] @ (gate / (1 + np.exp(-gate)) * (t["up"][rows] @ h))
        with torch.no_grad():
            found = layer(torch.tensor(x[None, i : i + 1], dtype=torch.float32))[0, 0]
        np.testing.assert_allclose(found.numpy(), wanted, atol=2e-6)
        seen.add(len(rows))
    assert len(seen) > 1, "the draw should make different tokens use different numbers of groups"


def silu(x):
    return x / (1 + np.exp(-x))


def test_hashed_groups_are_as_many_for_every_token_and_spread_evenly():
    wide = shape(hidden=256, group=16, chosen=4, vocabulary=4096)
    runs = hashed.table(wide)
    assert (runs.sum(1) == 4).all()
    expected, deviation = 4096 / 4, (4096 * 0.25 * 0.75) ** 0.5
    assert np.abs(runs.sum(0) - expected).max() < 4 * deviation
    together = runs.T.astype(float) @ runs / 4096  # pairs of groups, as by chance
    assert np.abs(together[~np.eye(16, dtype=bool)] - 4 * 3 / (16 * 15)).max() < 0.02


def test_the_engine_hashes_as_the_reference_does():
    found = np.empty(16, np.float32)
    for chosen in (1, 5):
        table = hashed.table(shape(hidden=256, group=16, chosen=chosen, vocabulary=2**17))
        for token in (0, 1, 77, 65_535, 65_536, 2**17 - 1):
            hash_engine.choose(token, 16, chosen, found, 0)
            np.testing.assert_array_equal(found > 0, table[token])


def test_a_hashed_ffn_runs_the_groups_of_each_token():
    layer = hashed.build(shape(chosen=2)).eval()
    runs, t = hashed.table(shape(chosen=2)), layer.export()
    x, tokens = np.random.default_rng(0).normal(size=(9, 32)), np.arange(40, 49)
    layer.see(torch.from_numpy(tokens)[None])
    with torch.no_grad():
        found = layer(torch.tensor(x[None], dtype=torch.float32))[0].numpy()
    for h, token, y in zip(x, tokens, found, strict=True):
        rows = np.flatnonzero(runs[token].repeat(16))
        neurons = silu(t["gate"][rows] @ h) * (t["up"][rows] @ h)
        np.testing.assert_allclose(y, t["down"][:, rows] @ neurons, atol=2e-6)


def test_a_mixture_weighs_the_best_experts_by_a_softmax_over_them():
    layer = moe.build(shape(chosen=2)).eval()
    t = layer.export()
    x = np.random.default_rng(0).normal(size=(20, 32))
    with torch.no_grad():
        found = layer(torch.tensor(x[None], dtype=torch.float32))[0].numpy()
    for h, y in zip(x, found, strict=True):
        logits = t["router"] @ h
        first, second = np.argsort(-logits)[:2]
        share = 1 / (1 + np.exp(logits[second] - logits[first]))
        wanted = np.zeros(32)
        for group, weight in ((first, share), (second, 1 - share)):
            rows = slice(16 * group, 16 * group + 16)
            neurons = silu(t["gate"][rows] @ h) * (t["up"][rows] @ h)
            wanted += weight * t["down"][:, rows] @ neurons
        np.testing.assert_allclose(y, wanted, atol=2e-6)


def test_a_mixture_is_balanced_when_its_penalty_is_least():
    """All to the same experts costs more than an even spread, which costs 1."""
    layer = moe.build(shape(chosen=1))
    with torch.no_grad():
        layer.router.zero_()
        layer.router[torch.arange(4), torch.arange(4)] = 20.0
    even = torch.eye(32)[torch.arange(4).repeat(5)][None]
    layer(even)
    assert layer.imbalance.item() == pytest.approx(1, abs=1e-3)
    layer(even[:, :1].expand(1, 20, 32))
    assert layer.imbalance.item() == pytest.approx(4, abs=1e-3)
    layer(torch.randn(1, 20, 32))
    layer.penalty().backward()
    assert layer.router.grad.abs().sum() > 0


def test_relu_and_threshold_are_their_formulas_and_count_the_groups_that_run():
    x = np.random.default_rng(0).normal(size=(40, 32))
    for layer, floor in ((relu.build(shape()), None), (threshold.build(shape()), 0.5)):
        layer.eval()
        t = layer.export()
        if floor is not None:
            layer.threshold.fill_(floor)
        with torch.no_grad():
            found = layer(torch.tensor(x[None], dtype=torch.float32))[0].numpy()
        gate = x @ t["gate"].T
        if floor is None:
            neurons = np.maximum(gate, 0) * (x @ t["up"].T)
        else:
            runs = np.abs(silu(gate)).reshape(-1, 4, 16).max(-1) > floor
            assert 0.1 < runs.mean() < 0.9
            neurons = silu(gate) * (x @ t["up"].T) * runs.repeat(16, axis=1)
        np.testing.assert_allclose(found, neurons @ t["down"].T, atol=2e-6)


def test_the_share_of_relu_groups_that_run_is_exact_and_has_a_gradient():
    layer = relu.build(shape())
    with torch.no_grad():
        layer.gate_up[:16] = 0  # gates of zero are shut
    layer(torch.randn(1, 50, 32))
    assert 0.5 < layer.running.item() <= 0.75
    layer.running.backward()
    assert layer.gate_up.grad[:64].abs().sum() > 0


def test_a_score_of_zero_does_not_run():
    layer = selective.build(shape(ffn="selective")).eval()
    with torch.no_grad():
        layer.selector_out.zero_()
        layer.selector_bias.zero_()
        assert (layer(torch.randn(1, 3, 32)) == 0).all()
    assert layer.running == 0


def test_the_selector_learns_through_the_hard_choice():
    layer = selective.build(shape(ffn="selective"))
    layer(torch.randn(2, 5, 32)).square().sum().backward()
    assert layer.selector_in.grad.abs().sum() > 0
    layer.zero_grad()
    layer(torch.randn(2, 5, 32))
    layer.running.backward()
    assert layer.selector_bias.grad.abs().sum() > 0


def test_exploring_replaces_the_choice_only_while_training():
    layer = selective.build(shape(ffn="selective"))
    x = torch.randn(4, 50, 32)
    plain = layer(x)
    layer.explore(1.0, 0.25, torch.Generator().manual_seed(0))
    assert not torch.equal(layer(x), plain)
    assert torch.equal(layer.eval()(x), plain)
    layer.train().explore(0.0, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), plain)


# ---- steps with gradients of their own, in float32, against PyTorch's in float64 ---------------


def gradients(call, inputs, dtype):
    """Values and gradients of a call with a fixed direction, as float64."""
    given = [x.detach().to(dtype).requires_grad_() for x in inputs]
    out = call(*given)
    torch.manual_seed(1)
    direction = torch.randn(out.shape, dtype=torch.float64).to(dtype)
    return [t.detach().double() for t in (out, *torch.autograd.grad(out, given, direction))]


def agrees(call, *inputs, rtol=1e-4):
    pairs = zip(*(gradients(call, inputs, d) for d in (torch.float32, torch.float64)), strict=True)
    for single, double in pairs:
        torch.testing.assert_close(
            single, double, rtol=0, atol=rtol * max(1.0, float(double.abs().max()))
        )


@pytest.mark.parametrize("rows", [(7,), (2, 5), (1, 1, 3)])
def test_fast_steps_have_the_values_and_gradients_of_their_formulas(rows):
    torch.manual_seed(0)
    x, weight = torch.randn(*rows, 24), torch.randn(17, 24)
    agrees(autograd.linear, x, weight)
    agrees(lambda x, gain: autograd.rms_norm(x, gain, 1e-5), x, torch.randn(24))
    agrees(autograd.swiglu, x)


def test_a_linear_step_takes_inputs_that_are_not_contiguous():
    torch.manual_seed(0)
    agrees(lambda x, w: autograd.linear(x.transpose(0, 1), w.t()), torch.randn(5, 3, 8),
           torch.randn(8, 6))  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3, 33, 130])
@pytest.mark.parametrize("channels", [1, 4, 8])
@pytest.mark.parametrize("name", ["mcsd", "mcsd-paper"])
def test_mcsd_trains_by_its_kernels_with_the_gradients_of_the_matrix_form(name, n, channels):
    """Over inputs and every parameter, learned rates included."""
    torch.manual_seed(0)
    plugin = plugins.mixers()[name]
    layer = plugins.half(plugin, "reference").build(shape(channels=channels), **plugin.options)
    x = torch.randn(3, n, 32)
    names = [key for key, _ in layer.named_parameters()]

    def call(x, *parameters):
        # rates stay float64, as they are kept; the others follow the inputs
        values = dict(zip(names, parameters, strict=True))
        if "logits" in values:
            values["logits"] = values["logits"].double()
        return torch.func.functional_call(layer, values, (x,))

    agrees(call, x, *(p.detach() for p in layer.parameters()), rtol=2e-4)
