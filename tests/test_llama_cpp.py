"""llama.cpp on files we exported against our engine: same weights, same logits."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.special import logsumexp

from harness import candidates, export, plugins
from harness.engines import llama_cpp
from harness.engines.numba import session as ours
from harness.errors import BadInput, Mismatch
from harness.make import make, pack
from harness.peers.frame import Setup
from harness.records import RopeScaling
from tests import models, public

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python; nox -s peers brings it")
pytest.importorskip("gguf")

CONTEXT, WINDOWS = 128, 24
# Relative bounds of logits (root mean square) and of bits per byte, by steps. llama.cpp rounds
# activations to bf16 beside bf16 weights; int8 rounds ours by one scale a token, llama.cpp's by
# one for 32 values.
BOUNDS = {
    "f32": 1e-3, "f16": 1e-3, "bf16": 1e-2, "int8": 2e-2, "int8g32": 1e-2, "int4": 1e-2,
    "f32+kvf16": 1e-3, "int4+kvint8": 1e-2,
}  # fmt: skip


@pytest.fixture
def opened(tmp_path):
    """A checkpoint in llama.cpp, by way of a file."""

    def open_session(checkpoint, **options):
        export.export(checkpoint, tmp_path / "model.gguf")
        return llama_cpp.LlamaCpp(tmp_path / "model.gguf", **options)

    return open_session


@pytest.fixture(scope="module")
def windows():
    """Windows of the held-out text, spread over it, with the byte after each."""
    text = plugins.corpora()["pydocs"].load().test.astype(np.int64)
    starts = np.linspace(0, text.size - CONTEXT - 1, WINDOWS).astype(int)
    return [text[start : start + CONTEXT + 1] for start in starts]


def logits(windows, reset, feed):
    rows = []
    for window in windows:
        reset()
        rows.append(feed(window[:-1], every=True))
    return np.concatenate(rows).astype(np.float64)


def bits(rows, windows):
    targets = np.concatenate([window[1:] for window in windows])
    chosen = rows[np.arange(targets.size), targets]
    return float((logsumexp(rows, axis=1) - chosen).mean() / np.log(2))


def distance(found, wanted):
    """Relative root mean square; a constant added to all logits of a token means nothing."""
    found, wanted = (rows - rows.mean(1, keepdims=True) for rows in (found, wanted))
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("steps", BOUNDS)
def test_trained_weights_give_the_same_logits_and_bits_per_byte(opened, windows, steps):
    checkpoint = make(candidates.parse(f"attention:nano@{steps}"))
    with ours.open_session(checkpoint, room=CONTEXT) as session:
        wanted = logits(windows, partial(ours.reset, session), partial(ours.feed, session))
    with opened(checkpoint, room=CONTEXT, cache=checkpoint.shape.cache) as session:
        found = logits(windows, session.reset, session.feed)
    assert distance(found, wanted) < BOUNDS[steps]
    assert bits(found, windows) == pytest.approx(bits(wanted, windows), rel=BOUNDS[steps])


@pytest.mark.parametrize(
    "changes",
    [
        dict(tied=True),
        dict(kv_heads=1),
        dict(heads=2, kv_heads=2, head_width=64),  # wider than the stream
        dict(rope_base=5e5, norm_epsilon=1e-2),
        dict(rope_scaling=RopeScaling(kind="linear", factor=4.0)),
        dict(rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_context=64)),
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_part_of_the_shape_reaches_llama_cpp(opened, changes):
    checkpoint = models.checkpoint(models.shape(**{"context": 64, **changes}))
    tokens = np.random.default_rng(3).integers(0, 101, 64)
    with ours.open_session(checkpoint, room=64) as session:
        wanted = ours.feed(session, tokens, every=True)
    with opened(checkpoint, room=64, cache="f32") as session:
        found = session.feed(tokens, every=True)
    assert distance(found, wanted) < 1e-3


@pytest.mark.parametrize("rope", [public.LLAMA3, {"type": "linear", "factor": 2.0}])
def test_public_weights_give_llama_cpp_the_logits_of_their_own_forward_pass(opened, tmp_path, rope):
    """The folder's model in float64, without any code of ours, against llama.cpp on our file."""
    config = public.CONFIG | {"head_dim": 32, "rope_scaling": rope}
    tensors = public.weights(config)
    folder = public.write(tmp_path / "model", config, tensors)
    tokens = np.random.default_rng(8).integers(0, config["vocab_size"], 96)
    wanted = public.forward(config, tensors, tokens)
    with opened(make(candidates.parse(f"{folder}@f16")), room=96, cache="f32") as session:
        found = session.feed(tokens, every=True)
    assert distance(found, wanted) < 2e-3


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_are_a_feed_of_the_same_tokens_and_start_afresh_after_a_reset(opened, threads):
    tokens = np.random.default_rng(4).integers(0, 101, 40)
    with opened(models.checkpoint(models.shape()), room=64, threads=threads) as session:
        fed = session.feed(tokens)
        session.reset()
        for token in tokens:
            stepped = session.step(int(token))
        assert session.depth == 40
        np.testing.assert_allclose(stepped, fed, rtol=0, atol=5e-3)


def test_a_context_taken_back_is_gone_on_with_as_if_it_had_never_been(opened):
    tokens = np.random.default_rng(4).integers(0, 101, 40)
    with opened(models.checkpoint(models.shape()), room=64) as session:
        wanted = session.feed(tokens)
        session.feed(tokens[:20])
        session.rewind(30)
        found = session.feed(tokens[30:])
        assert session.depth == 40
        with pytest.raises(BadInput, match="has seen 40 tokens, not 41"):
            session.rewind(41)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-3)


def test_a_prompt_longer_than_a_batch_is_read_in_pieces(opened):
    tokens = np.random.default_rng(5).integers(0, 101, llama_cpp.BATCH + 70)
    with opened(models.checkpoint(models.shape()), room=tokens.size) as session:
        every = session.feed(tokens, every=True)
        session.reset()
        last = session.feed(tokens)
    assert every.shape == (tokens.size, 101)
    np.testing.assert_allclose(every[-1], last, rtol=0, atol=5e-3)


def test_the_table_can_say_how_the_peer_was_built_and_what_it_chose(opened):
    with opened(pack(models.checkpoint(models.shape()), "int4"), room=64) as session:
        assert "flash attention enabled" in session.chosen
        assert "cache f16" in session.chosen
    assert "llama-cpp-python" in llama_cpp.about()


def test_a_cache_of_8_bits_is_close_to_one_of_16(opened):
    tokens = np.random.default_rng(6).integers(0, 101, 60)
    checkpoint = models.checkpoint(models.shape(heads=2, kv_heads=2, head_width=32))
    with opened(checkpoint, room=64, cache="f32") as session:
        wanted = session.feed(tokens, every=True)
    with opened(checkpoint, room=64, cache="int8") as session:
        assert "cache q8_0" in session.chosen
        found = session.feed(tokens, every=True)
    assert 0 < distance(found, wanted) < 2e-2


@pytest.fixture
def twins(monkeypatch):
    """The module, on checkpoints small enough for a test."""
    from harness.peers import twins

    monkeypatch.setattr(twins, "make", lambda recipe: models.checkpoint(models.shape(), "int4"))
    return twins


SETUP = Setup(threads=(1, 2))  # threads go where they like


@pytest.mark.parametrize("threads", SETUP.threads)
def test_twins_take_turns_on_the_same_tokens_at_any_depth(twins, threads):
    with (
        twins.exported("attention:110m@int4") as model,
        twins.opened(model, SETUP, threads, room=48) as both,
    ):
        twins.fill(both.players, 101, 40)
        for depth in (40, 20, 0):
            sides = twins.decode(both.players, 101, depth, 5)
            assert all(side() > 0 for side in sides.values())
            after = [each.step(1).copy() for each in both.players.values()]
            assert distance(*(row[None] for row in after)) < 5e-2
        assert all(side() > 0 for side in twins.prefill(both.players, 101, 48).values())
        with pytest.raises(BadInput, match="do not fit"):
            both.players["llama.cpp"].feed(np.array([1]))
    assert not model.path.exists()


def test_twins_that_disagree_are_not_timed(twins):
    other = models.checkpoint(models.shape(), "int4", seed=1)
    with twins.exported("attention:110m@int4") as model:
        export.export(other, model.path)
        with (
            pytest.raises(Mismatch, match="our logits and those of llama"),
            twins.opened(model, SETUP, 1, room=48),
        ):
            pass


def test_mistakes_are_one_line(opened, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(BadInput, match=r"llama.cpp cannot load .*broken\.gguf"):
        llama_cpp.LlamaCpp(tmp_path / "broken.gguf", room=8)
    session = opened(models.checkpoint(models.shape()), room=256)
    with pytest.raises(BadInput, match=r"in 0\.\.100"):
        session.feed([101])
    with pytest.raises(BadInput, match="do not fit a context of 256"):
        session.feed([1] * 300)
    session.close()
    session.close()
    with pytest.raises(BadInput, match="is closed"):
        session.feed([1])
