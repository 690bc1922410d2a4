"""Dot products of bytes and half floats against NumPy, for every set of features this CPU has."""

from __future__ import annotations

import platform

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba import njit
from numba.core import config
from numba.core.registry import cpu_target

from kernels import dots, lowering, simd

SETS = {
    "x86_64": ("+avx512vnni,+avxvnni,+avx2,+f16c", "+avxvnni,+avx2,+f16c", "+avx2,+f16c", ""),
    "aarch64": ("+i8mm,+dotprod", "+dotprod", ""),
}
HERE = set(lowering.features().split(","))
SETS_HERE = [s for s in SETS.get(platform.machine(), ()) if not s or HERE.issuperset(s.split(","))]


@pytest.fixture(params=["plain", *SETS_HERE])
def features(request, monkeypatch):
    """Code for these features; Numba's own code generator keeps what the CPU has."""
    cpu_target.target_context.codegen()
    if request.param == "plain":
        monkeypatch.setenv(lowering.PLAIN, "1")
    else:
        monkeypatch.delenv(lowering.PLAIN, raising=False)
        monkeypatch.setattr(config, "CPU_FEATURES", request.param)
    return request.param


def lanes(operation):
    """operation(total, w, x) on arrays, compiled now."""

    @njit
    def run(total, w, x, out):
        value = operation(simd.splat_i32(total[0]), simd.load_bytes(w, 0), simd.load_bytes(x, 0))
        simd.store_f32(out, 0, simd.to_f32(value))

    def call(total, w, x):
        out = np.zeros(16, np.float32)
        run(np.array([total], np.int32), w.astype(np.uint8), x.astype(np.uint8), out)
        return out

    return call


def wanted(total, w, x):
    return total + (w.astype(int) * x.astype(int)).reshape(16, 4).sum(1)


def draws(low, high, least, seeds=40):
    """Weights in low..high and x in least..127: corners first, then random ones."""
    for w in (low, high):
        for x in (least, 127):
            yield np.full(64, w), np.full(64, x)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        yield rng.integers(low, high + 1, 64), rng.integers(least, 128, 64)


def test_dot4_is_exact_for_all_bytes(features):
    call = lanes(simd.dot4)
    for w, x in draws(0, 255, -128):
        np.testing.assert_array_equal(call(-77, w, x), wanted(-77, w, x))


def test_dot4_of_nibbles_is_exact(features):
    call = lanes(simd.dot4_nibbles)
    for w, x in draws(0, 15, -128):
        np.testing.assert_array_equal(call(1234, w, x), wanted(1234, w, x))


def test_a_biased_dot4_takes_the_bias_off_from_the_start(features):
    @njit
    def run(surplus, w, x, out):
        start = simd.biased_start(surplus[0])
        value = simd.dot4_biased(start, simd.load_bytes(w, 0), simd.load_bytes(x, 0))
        simd.store_f32(out, 0, simd.to_f32(value))

    for w, x in draws(-128, 127, -127):
        x = np.tile(x[:4], 16)  # one x for all lanes, as kernels have it
        out, surplus = np.zeros(16, np.float32), np.array([-128 * x[:4].sum()], np.int32)
        run(surplus, (w + 128).astype(np.uint8), x.astype(np.uint8), out)
        np.testing.assert_array_equal(out, wanted(0, w, x))


def test_a_quad_is_four_bytes_in_every_lane(features):
    @njit
    def run(source, at, out):
        one = simd.low_nibbles(simd.load_bytes(out, 0))  # a 1 in each byte
        zero = simd.splat_i32(np.int32(0))
        simd.store_i8(out, 64, simd.dot4(zero, one, simd.quad(source, at, 0)))
        simd.store_i8(out, 80, simd.dot4(zero, one, simd.quad(source, at, 1)))
        simd.store_i8(out, 96, simd.dot4(zero, one, simd.quad(source, at, 2)))
        simd.store_i8(out, 112, simd.dot4(zero, one, simd.quad(source, at, 3)))

    source, out = np.arange(40, dtype=np.uint8), np.full(128, 17, np.uint8)
    run(source, 5, out)
    sums = source[5:21].reshape(4, 4).sum(1)
    np.testing.assert_array_equal(out[64:].reshape(4, 16), np.repeat(sums[:, None], 16, 1))


def test_nibbles_are_the_halves_of_bytes(features):
    @njit
    def run(source, out):
        zero, one = simd.splat_i32(np.int32(0)), simd.load_bytes(source, 64)
        low = simd.dot4(zero, simd.low_nibbles(simd.load_bytes(source, 0)), one)
        high = simd.dot4(zero, simd.high_nibbles(simd.load_bytes(source, 0)), one)
        simd.store_i8(out, 0, low)
        simd.store_i8(out, 16, high)

    for start in range(0, 256, 64):
        source = np.concatenate([np.arange(start, start + 64), np.ones(64)]).astype(np.uint8)
        out = np.zeros(32, np.uint8)
        run(source, out)
        halves = np.stack([source[:64] & 15, source[:64] >> 4]).reshape(2, 16, 4).sum(2)
        np.testing.assert_array_equal(out.reshape(2, 16), halves)


def test_crumbs_are_the_quarters_of_bytes(features):
    @njit
    def run(source, out):
        zero, one = simd.splat_i32(np.int32(0)), simd.load_bytes(source, 64)
        bytes_ = simd.load_bytes(source, 0)
        simd.store_i8(out, 0, simd.dot4(zero, simd.crumbs(bytes_, 0), one))
        simd.store_i8(out, 16, simd.dot4(zero, simd.crumbs(bytes_, 1), one))
        simd.store_i8(out, 32, simd.dot4(zero, simd.crumbs(bytes_, 2), one))
        simd.store_i8(out, 48, simd.dot4(zero, simd.crumbs(bytes_, 3), one))

    for start in range(0, 256, 64):
        source = np.concatenate([np.arange(start, start + 64), np.ones(64)]).astype(np.uint8)
        out = np.zeros(64, np.uint8)
        run(source, out)
        quarters = np.stack([source[:64] >> i & 3 for i in (0, 2, 4, 6)])
        np.testing.assert_array_equal(out.reshape(4, 16), quarters.reshape(4, 16, 4).sum(2))


def test_every_float16_is_widened_exactly(features):
    @njit
    def run(halves, out):
        for i in range(0, halves.size, 16):
            simd.store_f32(out, i, simd.load_f16(halves, i))

    bits = np.arange(2**16, dtype=np.uint16)
    every = bits.view(np.float16)
    out = np.zeros(every.size, np.float32)
    run(bits, out)
    number = ~np.isnan(every)
    with np.errstate(invalid="ignore"):
        right = every.astype(np.float32)
    assert out[number].tobytes() == right[number].tobytes()
    assert np.isnan(out[~number]).all()


def test_float16_is_rounded_to_the_nearest_and_to_even(features):
    @njit
    def run(values, out):
        for i in range(0, values.size, 16):
            simd.store_f16(out, i, simd.load_f32(values, i))

    exact = np.arange(2**16, dtype=np.uint16).view(np.float16)
    exact = exact[np.isfinite(exact)].astype(np.float32)
    between = (exact + np.roll(exact, 1)) / 2  # ties, in order of bits
    near = np.nextafter(between, np.float32(np.inf)), np.nextafter(between, np.float32(-np.inf))
    random = np.random.default_rng(0).standard_normal(2**14).astype(np.float32)
    scales = np.float32(2.0) ** np.arange(-40, 40, dtype=np.float32)
    spread = (random[:, None] * scales).reshape(-1)
    ends = np.float32([65504, 65519.996, 65520, 1e30, np.inf, 6e-8, 2.9e-8, 1e-40, 0.0] + 7 * [1])
    values = np.concatenate([exact, between, *near, spread, ends, -ends])
    values = np.resize(values, -(-values.size // 16) * 16)
    out = np.zeros(values.size, np.uint16)
    run(values, out)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out, values.astype(np.float16).view(np.uint16))
    run(np.full(16, np.nan, np.float32), out)
    assert np.isnan(out[:16].view(np.float16)).all()


def emitted(lower, cpu, monkeypatch, features, *operands):
    """Mnemonics of a function that is one operation, compiled for another CPU."""
    monkeypatch.setenv(lowering.CROSS, features)
    monkeypatch.delenv(lowering.PLAIN, raising=False)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(lowering.INTS, operands), "probe")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(lower(builder, *function.args))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(
        cpu=cpu, opt=3
    )
    text = str(module).replace(lowering.FOREIGN, "llvm.")
    lines = machine.emit_assembly(llvm.parse_assembly(text)).splitlines()
    return [line.split()[0] for line in lines if line.startswith("\t") and "\t." not in line]


THREE = (lowering.INTS, lowering.BYTES, lowering.BYTES)


def test_a_dot_product_of_nibbles_is_one_instruction_a_quarter_on_arm(monkeypatch):
    code = emitted(dots.dot4_nibbles, "cortex-a76", monkeypatch, "+neon,+dotprod", *THREE)
    assert sorted(line for line in code if line[:2] != "ld") == ["ret", *["sdot"] * 4]


def test_arm_without_dot_products_multiplies_eight_bytes_at_once(monkeypatch):
    code = emitted(dots.dot4_nibbles, "cortex-a72", monkeypatch, "+neon", *THREE)
    for name, times in (("smull", 4), ("smull2", 4), ("addp", 4), ("sadalp", 4)):
        assert code.count(name) == times, code
    assert "sdot" not in code


@pytest.mark.parametrize("wrong", [4, -1])
def test_a_quad_beyond_the_sixteen_is_refused(wrong):
    @njit
    def run(source):
        return simd.sum_i32(
            simd.dot4(
                simd.splat_i32(np.int32(0)),
                simd.load_bytes(source, 0),
                simd.quad(source, 0, wrong),
            )
        )

    with pytest.raises(Exception, match="quad needs 0, 1, 2 or 3"):
        run(np.zeros(64, np.uint8))
