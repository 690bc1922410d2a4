"""The engine against the PyTorch model of the same weights, and against itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import checkpoint as checkpoints
from harness import plugins, verify
from harness.candidates import tensors
from harness.engines.numba import arenas, plan, random, session
from harness.errors import BadCheckpoint, BadInput, UnknownName
from harness.make import pack
from harness.mixers.attention import spec as attention
from harness.records import Recipe
from harness.training.model import from_checkpoint
from kernels import attending, lowering
from kernels.caches import KINDS
from tests import models

ROOT = Path(__file__).parents[1]
N = 70  # more than the engine takes in one call, and no multiple of anything
FORMATS, FFNS = sorted(plugins.formats()), sorted(plugins.ffns())


def stacks():
    """In float32 every ffn on one mixer and two on each; one format of every other kernel on one.

    Compiling a plan takes seconds. A variant, which shares its folder with another, has a dense ffn
    alone.
    """
    kernels = {plugins.formats()[form].kernel: form for form in reversed(FORMATS)}
    folders = sorted({mixer.folder for mixer in plugins.mixers().values()})
    for mixer in sorted(set(plugins.mixers()) - set(folders)):
        yield pytest.param((mixer, mixer), "dense", "f32", id=f"{mixer}-dense-f32")
    for j, mixer in enumerate(folders):
        for i, form in enumerate(sorted(kernels.values())):
            if form == "f32":
                wanted = FFNS if mixer == "mcsd" else ["dense", FFNS[j % len(FFNS)]]
            else:
                wanted = [FFNS[(i + j) % len(FFNS)]] if (i + j) % 3 == 0 else []
            for ffn in dict.fromkeys(wanted):
                yield pytest.param((mixer, mixer), ffn, form, id=f"{mixer}-{ffn}-{form}")
    yield pytest.param(("attention", "attention"), "dense", "int8", id="attention-dense-int8")
    yield pytest.param(("attention", "mcsd", "attention"), "dense", "f32", id="hybrid")


EVERY = pytest.mark.parametrize(("mixers", "ffn", "form"), list(stacks()))


def made(mixers, ffn, form):
    """The head of the hybrid is its embedding."""
    return models.checkpoint(models.shape(mixers, ffn, tied=len(set(mixers)) > 1), form)


def text(n=N, seed=0):
    return np.random.default_rng(seed).integers(0, 101, n)


def prefill(checkpoint, tokens, **options):
    with session.open_session(checkpoint, room=len(tokens), **options) as s:
        return session.feed(s, tokens, every=True)


def model_logits(checkpoint, tokens):
    with torch.no_grad():
        return from_checkpoint(checkpoint)(torch.from_numpy(tokens)[None])[0].numpy()


def exact(form):
    return plugins.formats()[form].arithmetic == "int8"


def assert_close(found, wanted, rtol=1e-4):
    assert np.abs(found - wanted).max() <= rtol * np.abs(wanted).max()


# ---- agreement ----------------------------------------------------------------------------------


@EVERY
def test_the_engine_agrees_with_the_model_of_its_weights(mixers, ffn, form):
    checkpoint, tokens = made(mixers, ffn, form), text()
    found, wanted = prefill(checkpoint, tokens), model_logits(checkpoint, tokens)
    if not exact(form):
        assert_close(found, wanted)
        return
    # activations are rounded to 1/127 of their largest, some ten times a layer
    cosine = (
        (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    )
    assert cosine.min() > 0.999
    assert_close(found, wanted, 0.05)


@EVERY
def test_a_prefill_equals_as_many_decode_steps(mixers, ffn, form):
    checkpoint, tokens = made(mixers, ffn, form), text()
    whole = prefill(checkpoint, tokens)
    with session.open_session(checkpoint, room=N) as s:
        steps = np.stack([session.step(s, int(token)).copy() for token in tokens])
        session.reset(s)
        mixed = [session.feed(s, tokens[:3]), session.feed(s, tokens[3:69])]
        mixed.append(session.step(s, int(tokens[69])))
    for row, place in zip(mixed, (2, 68, 69), strict=True):
        assert_close(row, whole[place])
    if exact(form):
        np.testing.assert_array_equal(steps, whole)
    else:
        assert_close(steps, whole)


@EVERY
def test_any_number_of_threads_gives_the_same_bits(mixers, ffn, form):
    checkpoint, tokens = made(mixers, ffn, form), text(20)
    alone = prefill_and_steps(checkpoint, tokens)
    for threads in (2, 4):
        with session.open_session(checkpoint, room=20, threads=threads) as s:
            found = [session.feed(s, tokens[:13], every=True)]
            found += [session.step(s, int(t))[None].copy() for t in tokens[13:]]
        np.testing.assert_array_equal(np.concatenate(found), alone)


def prefill_and_steps(checkpoint, tokens):
    with session.open_session(checkpoint, room=20) as s:
        found = [session.feed(s, tokens[:13], every=True)]
        return np.concatenate(found + [session.step(s, int(t))[None].copy() for t in tokens[13:]])


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_length_of_a_call_changes_nothing(chunk):
    checkpoint, tokens = made(("mcsd", "mcsd"), "selective", "f32"), text()
    assert_close(prefill(checkpoint, tokens, chunk=chunk), prefill(checkpoint, tokens, chunk=100))


def test_head_embedding_and_layers_may_have_formats_of_their_own():
    plain = made(("attention", "attention"), "dense", "f32")
    arrays, formats = {}, {}
    for form, wanted in (
        ("int4", "layers."),
        ("int8", "head"),
        ("f32", "embedding"),
        ("f32", "norm"),
    ):
        packed = pack(plain, form)
        arrays |= {n: a for n, a in packed.arrays.items() if n.startswith(wanted)}
        formats |= {n: f for n, f in packed.formats.items() if n.startswith(wanted)}
    mixed, tokens = replace(plain, arrays=arrays, formats=formats), text(20)
    found, wanted = prefill(mixed, tokens), model_logits(mixed, tokens)
    assert_close(found, wanted, 0.05)


# ---- threads and life cycle ---------------------------------------------------------------------


def test_helpers_that_fell_asleep_wake_up_for_the_next_token():
    checkpoint, tokens = made(("attention", "attention"), "dense", "int8"), text(6)
    alone = prefill_and_steps(checkpoint, np.concatenate([text(13), tokens]))[13:]
    with session.open_session(checkpoint, room=20, threads=3) as s:
        session.feed(s, text(13))
        for token, wanted in zip(tokens, alone, strict=True):
            time.sleep(0.3 if token is tokens[0] or wanted is alone[3] else 0.05)
            np.testing.assert_array_equal(session.step(s, int(token)), wanted)
        time.sleep(0.3)
        session.close(s)
        session.close(s)
        assert not s.crew.helpers


def test_a_session_can_be_reset_and_used_again():
    checkpoint, tokens = made(("mcsd", "mcsd"), "dense", "f32"), text(20)
    with session.open_session(checkpoint, room=20) as s:
        first = session.feed(s, tokens)
        session.reset(s)
        np.testing.assert_array_equal(session.feed(s, tokens), first)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_session_cannot_do_is_one_clear_line(threads):
    checkpoint = made(("attention", "attention"), "dense", "f32")
    with session.open_session(checkpoint, room=4, threads=threads) as s:
        for bad, words in [
            ([], "non-empty"), ([[1, 2]], "one non-empty row"), ([101], "token 101"),
            ([3, -7], "token -7"), ([1.5], "whole numbers"), ([0] * 5, "context of 4"),
        ]:  # fmt: skip
            with pytest.raises(BadInput, match=words):
                session.feed(s, bad)
        for token in (-1, 101):
            with pytest.raises(BadInput, match=f"token {token}"):
                session.step(s, token)
        assert s.depth == 0
        session.feed(s, [1, 2, 3, 4])
        for call in (lambda: session.feed(s, [5]), lambda: session.step(s, 5)):
            with pytest.raises(BadInput, match=r"^4 \+ 1 tokens do not fit a context of 4"):
                call()
    for call in (lambda: session.feed(s, [5]), lambda: session.step(s, 5)):
        with pytest.raises(BadInput, match=r"test:tiny is closed"):
            call()


@pytest.mark.parametrize("options", [{"threads": 0}, {"room": 0}, {"chunk": 0}])
def test_a_session_without_room_or_threads_is_refused(options):
    checkpoint = made(("attention", "attention"), "dense", "f32")
    with pytest.raises(BadInput, match="at least 1"):
        session.open_session(checkpoint, **{"room": 4, **options})


# ---- checkpoints that do not fit ----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_that_are_missing_or_misshapen_are_named(form):
    whole = models.checkpoint(models.shape(("attention", "mcsd"), "selective"), form)
    for name in ("head", "layers.1.mixer.o", "layers.0.ffn_norm", "layers.1.ffn.selector_bias"):
        with pytest.raises(BadCheckpoint, match=f"{name!r} is missing"):
            arenas.build(models.without(whole, name), 8, 8, 1)
        short = replace(whole, arrays={**whole.arrays, name: whole.arrays[name][:-1]})
        with pytest.raises(BadCheckpoint, match=f"^test:tiny: tensor {name!r}"):
            arenas.build(short, 8, 8, 1)
    if form in ("int8", "int4"):
        with pytest.raises(BadCheckpoint, match="'head' is no valid"):
            arenas.build(models.without(whole, "head.scale"), 8, 8, 1)


def test_layers_of_different_formats_are_refused_and_not_misread():
    plain = made(("attention", "attention"), "dense", "f32")
    packed, name = pack(plain, "int8"), "layers.1.ffn.up"
    arrays = {n: a for n, a in packed.arrays.items() if not n.startswith(name)}
    formats = {n: f for n, f in packed.formats.items() if n != name}
    mixed = replace(packed, arrays={**arrays, name: plain.arrays[name]}, formats=formats)
    with pytest.raises(BadCheckpoint, match="every ffn needs one format"):
        session.open_session(mixed, room=4)


def test_an_unknown_format_is_answered_with_those_there_are():
    plain = made(("attention", "attention"), "dense", "f32")
    with pytest.raises(UnknownName, match=r"unknown format 'int3'; known: .*f32, int4"):
        session.open_session(replace(plain, formats={"head": "int3"}), room=4)


# ---- the key-value cache -------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["f32", "f16", "int8"])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_a_prompt_equals_single_tokens_over_any_cache(cache, kv_heads):
    """Bit for bit, whatever the threads: int8 weights would make whole steps of last digits."""
    shape = replace(models.shape(("attention", "attention"), "dense"), kv_heads=kv_heads)
    checkpoint = models.checkpoint(replace(shape, cache=cache), "int8")
    tokens = text(150)
    whole = prefill(checkpoint, tokens)
    for threads in (1, 2):
        with session.open_session(checkpoint, room=150, threads=threads) as s:
            first = session.feed(s, tokens[:97], every=True)
            rest = [session.step(s, int(t)).copy() for t in tokens[97:]]
        np.testing.assert_array_equal(np.concatenate([first, rest]), whole)


@pytest.mark.parametrize(("cache", "rtol"), [("f16", 1e-3), ("int8", 2e-2)])
def test_a_smaller_cache_costs_no_more_than_its_rounding(cache, rtol):
    shape = models.shape(("attention", "attention"), "dense")
    plain = models.checkpoint(shape, "f32")
    tokens = text(150)
    found = prefill(replace(plain, shape=replace(shape, cache=cache)), tokens)
    assert_close(found, model_logits(plain, tokens), rtol)


@pytest.mark.parametrize("form", ["f32", "sparse50"])
def test_a_candidate_is_not_refused_for_what_its_cache_rounds(form):
    exact = models.checkpoint(models.shape(("attention", "attention")), form)
    rounded = models.checkpoint(models.shape(("attention", "attention"), cache="f16"), form)
    assert verify.agree(exact) < 1e-6 < verify.agree(rounded)


@pytest.mark.parametrize(("cache", "rtol"), [("f32", 1e-4), ("f16", 2e-3), ("int8", 4e-2)])
def test_biases_by_distance_are_exact_in_any_cache_and_beyond_a_span(cache, rtol):
    """Where a position kept in the cache would have lost digits: 4200 is 4200 +- 2 in float16."""
    n = attending.SPAN + 100
    shape = models.shape(("attention-alibi",), heads=2, kv_heads=1, head_width=32)
    plain, tokens = models.checkpoint(shape), text(n)
    with session.open_session(replace(plain, shape=replace(shape, cache=cache)), room=n) as s:
        session.feed(s, tokens[:-3])
        found = np.stack([session.step(s, int(t)).copy() for t in tokens[-3:]])
    assert_close(found, model_logits(plain, tokens)[-3:], rtol)


@pytest.mark.parametrize("cache", ["f32", "f16", "int8"])
def test_the_spec_counts_what_the_cache_takes(cache):
    for width in (16, 32, 40, 64, 100, 128):
        shape = replace(models.shape(("attention",), "dense"), head_width=width, cache=cache)
        record = KINDS[cache].key_bytes(width) + KINDS[cache].value_bytes(width)
        assert attention.token_bytes(shape) == record / 16
        assert attention.state_values(shape, 65) * 4 == 80 * shape.kv_heads * record / 16


@pytest.mark.parametrize("cache", ["f32", "f16", "int8"])
def test_a_session_can_stand_at_a_depth(cache):
    shape = replace(models.shape(("attention", "mcsd"), "dense"), cache=cache)
    with session.open_session(models.checkpoint(shape, "f32"), room=1000) as s:
        session.stand(s, text(64), 990)
        assert s.depth == 990
        assert np.isfinite(session.step(s, 1)).all()


# ---- memory -------------------------------------------------------------------------------------


@EVERY
def test_resident_bytes_are_those_of_the_streams_and_the_state(mixers, ffn, form):
    checkpoint, spec = made(mixers, ffn, form), plugins.formats()[form]
    shape, room = checkpoint.shape, 50
    built = arenas.build(checkpoint, room, 8, 2)
    names = built.__dataclass_fields__
    assert built.resident_bytes == sum(getattr(built, name).nbytes for name in names)
    assert built.weights.ctypes.data % 64 == 0
    state = sum(plugins.mixers()[m].state_values(shape, room) for m in shape.mixers)
    assert 4 * state <= built.state.nbytes <= 4 * state + 64 * shape.layers
    least = 0
    for name, tensor in tensors(shape).items():
        if tensor.packed:
            stored = checkpoints.stored(checkpoint, name, tensor)
            whole = tensor.parts == 1
            least += spec.layout_bytes(*tensor.shape) if whole else sum(
                a.nbytes for a in stored.values()
            )  # fmt: skip
    assert least <= built.weights.nbytes <= 1.5 * least
    again = arenas.build(checkpoint, room, 8, 2)
    np.testing.assert_array_equal(built.weights, again.weights)


def test_layers_that_share_an_array_are_laid_out_like_those_that_do_not():
    shape = models.shape(("mcsd-paper", "mcsd-paper"), "selective")
    shared = random.checkpoint(Recipe(name="test:random", shape=shape, steps=("int8",)))
    own = replace(shared, arrays={name: a.copy() for name, a in shared.arrays.items()})
    first, second = (arenas.build(c, 8, 8, 1) for c in (shared, own))
    np.testing.assert_array_equal(first.weights, second.weights)


GROWTH = """
import ctypes, gc, json, sys
from dataclasses import replace
import psutil
from harness.engines.numba import random, session
from harness.records import Recipe, Shape

def recipe(layers, width, hidden):
    return Recipe(name="test:large", steps=("int8",), shape=Shape(
        vocabulary=256, width=width, layers=layers, mixers=("mcsd",) * layers, ffn="dense",
        hidden=hidden, heads=4, kv_heads=4, head_width=16, channels=4, context=64, tied=True,
    ))

def rss():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss

def used(layers, width, hidden):
    with session.open_session(random.checkpoint(recipe(layers, width, hidden)), room=64) as s:
        session.feed(s, list(range(64)), every=True)
        return s

peak = lambda: [int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l][0]
used(12, 64, 96)  # compiles
before, top = rss(), peak()
large = used(12, 896, 2240)
print(json.dumps([large.arenas.resident_bytes, rss() - before, max(peak(), top) - before]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_counted_bytes_are_the_growth_of_the_process():
    counted, grown, peak = json.loads(in_another_process(GROWTH))
    assert counted > 100e6
    assert grown == pytest.approx(counted, rel=0.1)
    # loading needs the model, one layer of it as stored and one tensor at a time
    assert peak < 1.4 * counted


# ---- plans and processes ------------------------------------------------------------------------


def in_another_process(code, *arguments, cwd=ROOT, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


SECOND = """
import json, sys
from pathlib import Path
from harness import checkpoint
from harness.engines.numba import session
with session.open_session(checkpoint.load(Path(sys.argv[1])), room=20, threads=2) as s:
    logits = session.feed(s, json.loads(sys.argv[2]))
heavy = [m for m in ("torch", "pandas", "matplotlib", "scipy.optimize") if m in sys.modules]
print(json.dumps([s.load_seconds, heavy, logits.tolist()]))
"""


def test_a_second_process_compiles_nothing_and_loads_no_torch(tmp_path):
    checkpoint, tokens = made(("attention", "attention"), "dense", "int8"), text(20)
    here = prefill(checkpoint, tokens)[-1]
    checkpoints.save(checkpoint, tmp_path / "c.safetensors")
    out = in_another_process(SECOND, str(tmp_path / "c.safetensors"), json.dumps(tokens.tolist()))
    seconds, heavy, logits = json.loads(out)
    assert seconds < 1, "compiling takes several seconds"
    assert heavy == []
    np.testing.assert_array_equal(np.float32(logits), here)


FINGERPRINT = "from harness.engines.numba import plan; print(plan._home())"


def test_a_changed_kernel_or_cpu_path_gets_plans_of_its_own(tmp_path):
    for package in ("harness", "kernels", "targets"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.csv")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    same = in_another_process(FINGERPRINT, cwd=tmp_path)
    assert same.strip() == str(plan._home())
    for source in ("kernels/maths.py", "harness/mixers/mcsd/engine.py", "harness/arena.py"):
        with (tmp_path / source).open("a") as file:
            file.write("# a change\n")
        changed = in_another_process(FINGERPRINT, cwd=tmp_path)
        assert changed != same, source
        same = changed
    other = "0" if os.environ.get(lowering.PLAIN) == "1" else "1"
    assert in_another_process(FINGERPRINT, cwd=tmp_path, EDGEWISE_PLAIN=other) != same


def test_a_plan_that_cannot_be_written_is_one_clear_line(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("EDGEWISE_CACHE", str(blocked))
    checkpoint = made(("attention", "mcsd", "mcsd", "attention"), "dense", "f32")
    with pytest.raises(plan.HarnessError, match=r"^cannot write the plan .* EDGEWISE_CACHE"):
        session.open_session(checkpoint, room=4)


OPENED = """
import sys
from tests import models
from harness.engines.numba import session
with session.open_session(models.checkpoint(models.shape(("mcsd",))), room=4) as s:
    print("opened", flush=True)
    print(float(session.step(s, 1).sum()))
"""


def test_plans_survive_two_compilers_at_once_and_damaged_files(tmp_path):
    environment = {**os.environ, "EDGEWISE_CACHE": str(tmp_path)}

    def opened():
        done = subprocess.run(
            [sys.executable, "-c", OPENED],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    # two processes that compile one plan at once
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: opened(), range(2))
    assert first == second
    (compiled,) = tmp_path.glob("plans/*/__pycache__/*.nbc")
    compiled.write_bytes(compiled.read_bytes()[:1000])
    assert opened() == first
    (plan_file,) = tmp_path.glob("plans/*/plan_*.py")
    text_of_plan = plan_file.read_text()
    plan_file.write_text(text_of_plan[:100])
    assert opened() == first
    assert plan_file.read_text() == text_of_plan


def test_a_plan_that_numba_cannot_keep_is_compiled_in_memory(monkeypatch):
    checkpoint = made(("mcsd", "mcsd"), "dense", "f32")
    module = plan.load(checkpoint)
    plan.renew(module)
    # no place for a cache that Numba knows of
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    again = plan.load(checkpoint)
    assert again is not module
    assert again.enter._cache.cache_path is None
    plan.renew(again)
