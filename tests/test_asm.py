"""What other CPUs would run: loops cut from assembly, and the instructions kernels must show."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import asm, plugins
from harness.asm import count, mca
from harness.asm.cores import known, pick
from harness.asm.emit import assemble, emit
from harness.asm.loops import innermost
from harness.errors import UnknownName
from kernels import lowering

KERNELS = plugins.kernel_specs()
INTEGER = [n for n in KERNELS if n.startswith("mat") and ("int" in n or "ternary" in n)]
VECTORISED = [n for n in KERNELS if n.startswith(("mat", "attention")) or n == "mcsd"]
SPILLS = {"matmul_ternary"}  # one constant of its unpacking has no register left on a Cortex-A76
WANTED = {
    "cortex-a76": INTEGER,
    "cortex-a72": VECTORISED,
    "haswell": INTEGER,
    "alderlake": INTEGER,
}

# ---- loops and counts, on assembly written by hand ----------------------------------------------

NESTED = """
run:
	mov	x9, #0
.LBB0_1:
	add	x9, x9, #1
.LBB0_2:
	ldr	q0, [x10], #16
	cbz	x3, .LBB0_4
	sdot	v1.4s, v0.16b, v2.4b[0]
.LBB0_4:
	subs	x4, x4, #1
	b.ne	.LBB0_2
	cmp	x9, x8
	b.lt	.LBB0_1
.LBB0_5:
	ldr	s0, [x12], #4
	b	.LBB0_7
.LBB0_6:
	ret
.LBB0_7:
	subs	x5, x5, #1
	b.eq	.LBB0_6
	b	.LBB0_5
"""


def test_innermost_loops_are_found_with_all_their_blocks_wherever_they_stand():
    first, second = innermost(NESTED)
    assert (first.label, first.depth, first.blocks) == (".LBB0_2", 2, 3)
    assert [line.split()[0] for line in first.lines] == ["ldr", "cbz", "sdot", "subs", "b.ne"]
    assert (second.label, second.depth, second.blocks) == (".LBB0_5", 1, 3)
    assert [line.split()[0] for line in second.lines] == ["ldr", "b", "subs", "b.eq", "b"]


ENTERED_IN_THE_MIDDLE = """
run:
	movq	%rdi, %rsi
.LBB0_1:
	xorl	%eax, %eax
	jmp	.LBB0_3
	.p2align	4
.LBB0_2:
	vmovdqu	(%rcx), %ymm0
	testq	%rax, %rax
	jle	.LBB0_4
.LBB0_3:
	cmpq	$9, %r8
	jle	.LBB0_2
	prefetcht1	(%rcx)
	jmp	.LBB0_2
.LBB0_4:
	decq	%rsi
	jne	.LBB0_1
	retq
"""


def test_a_loop_that_is_entered_in_its_middle_is_whole():
    (loop,) = innermost(ENTERED_IN_THE_MIDDLE)
    assert (loop.label, loop.depth, loop.blocks) == (".LBB0_2", 2, 3)


def test_the_hot_loop_is_the_deeper_one_that_reads_more():
    assert [loop.label for loop in asm.hot(innermost(NESTED))] == [".LBB0_2"]
    assert asm.hot([]) == []


@pytest.mark.parametrize(
    ("line", "kind", "stream", "size"),
    [
        ("ldp	q25, q26, [x9, #-64]", "load", "x9", 32),
        ("ldr	q24, [x10], #16", "load", "x10", 16),
        ("ldr	d1, [x1, x2, lsl #3]", "load", "x1+x2", 8),
        ("ldrb	w1, [x5]", "load", "x5", 1),
        ("ldrsw	x1, [x5]", "load", "x5", 4),
        ("ld1r	{ v3.4s }, [x4]", "load", "x4", 4),
        ("ld1	{ v3.16b, v4.16b }, [x4]", "load", "x4", 32),
        ("ld1w	{ z0.s }, p0/z, [x0, x8, lsl #2]", "load", "x0+x8", 16),
        ("ldp	q2, q3, [sp, #80]", "load", "stack", 32),
        ("stp	q0, q1, [x8]", "store", "", 0),
        ("eor	v26.16b, v26.16b, v27.16b", "vector", "", 0),
        ("sdot	v23.4s, v25.16b, v24.4b[0]", "dot", "", 0),
        ("smull2	v5.8h, v1.16b, v2.16b", "multiply", "", 0),
        ("fmla	v1.4s, v2.4s, v3.s[0]", "multiply", "", 0),
        ("fmadd	s1, s2, s3, s1", "scalar multiply", "", 0),
        ("mul	w1, w2, w3", "scalar multiply", "", 0),
        ("madd	x1, x2, x3, x4", "scalar", "", 0),
        ("imulq	%rax, %rcx", "scalar", "", 0),
        ("imull	%eax, %ecx", "scalar multiply", "", 0),
        ("sub	x11, x11, #1", "scalar", "", 0),
        ("b.gt	.LBB0_28", "branch", "", 0),
        ("vmovdqu	-192(%rax), %ymm9", "load", "rax", 32),
        ("vpbroadcastd	-12(%rcx), %ymm8", "load", "rcx", 4),
        ("{vex}	vpdpbusd	%ymm8, %ymm9, %ymm1", "dot", "", 0),
        ("vpdpbusd	(%rax){1to16}, %zmm2, %zmm1", "dot", "rax", 4),
        ("vfmadd231ps	64(%rdi,%rcx,4), %zmm2, %zmm1", "multiply", "rdi+rcx", 64),
        ("vpmaddwd	%ymm10, %ymm9, %ymm9", "multiply", "", 0),
        ("vmulss	(%rax), %xmm1, %xmm2", "scalar multiply", "rax", 4),
        ("vcvtph2ps	(%rsi), %ymm1", "vector", "rsi", 16),
        ("vpmovsxbw	(%rsi), %ymm1", "load", "rsi", 16),
        ("vmovups	%ymm1, (%rsi)", "store", "", 0),
        ("vmovaps	32(%rsp), %ymm1", "load", "stack", 32),
        ("vmulps	.LCPI0_1(%rip), %ymm1, %ymm2", "multiply", "constants", 32),
        ("movzbl	(%rax), %ecx", "load", "rax", 1),
        ("addq	$256, %rax", "scalar", "", 0),
        ("jg	.LBB0_59", "branch", "", 0),
    ],
)
def test_an_instruction_is_counted_as_what_it_is(line, kind, stream, size):
    assert count.kind(line) == kind
    assert count.streams([line]) == ({stream: size} if size else {})


# ---- what kernels become ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assemblies():
    """Core -> kernel -> assembly, each kernel compiled once for each set of features."""

    def made(cpu):
        codes = emit(WANTED[cpu], pick(cpu).flags)
        return {name: assemble(code, pick(cpu)) for name, code in codes.items()}

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(WANTED, pool.map(made, WANTED), strict=True))


def hot(assembly):
    return asm.hot(innermost(assembly))


@pytest.mark.parametrize("name", INTEGER)
def test_a_cortex_a76_multiplies_bytes_by_sdot_with_x_in_one_lane(assemblies, name):
    for loop in hot(assemblies["cortex-a76"][name]):
        found = count.kinds(loop.lines)
        assert found["dot"] >= 8 * found["load"] / 5
        assert "scalar multiply" not in found
        spilled = "stack" in count.streams(loop.lines)
        assert not spilled or name in SPILLS, "a tile that does not fit the registers"
        assert all(".4b[" in line for line in loop.lines if line.startswith("sdot"))


@pytest.mark.parametrize("name", VECTORISED)
def test_a_cortex_a72_multiplies_vectors_and_never_by_sdot(assemblies, name):
    text = assemblies["cortex-a72"][name]
    assert "sdot" not in text
    assert "usdot" not in text
    kinds = [count.kinds(loop.lines) for loop in hot(text)]
    assert kinds[0]["multiply"] >= 8
    assert not any("scalar multiply" in found for found in kinds)
    if name in INTEGER:
        assert "smull2" in count.mnemonics(hot(text)[0].lines)


@pytest.mark.parametrize("name", INTEGER)
def test_avx2_multiplies_exactly_and_stays_with_256_bits(assemblies, name):
    text = assemblies["haswell"][name]
    assert "zmm" not in text
    assert "vpdp" not in text
    loop = hot(text)[0]
    found = count.mnemonics(loop.lines)
    assert found["vpmaddwd"] >= 8
    small = "int4" in name or "ternary" in name
    assert ("vpmaddubsw" in found) == small, "it saturates unless weights are nibbles"
    assert "scalar multiply" not in count.kinds(loop.lines)


@pytest.mark.parametrize("name", INTEGER)
def test_avx_vnni_multiplies_by_dot_products_of_256_bits(assemblies, name):
    text = assemblies["alderlake"][name]
    assert "zmm" not in text
    loop = hot(text)[0]
    dots = [line for line in loop.lines if "vpdpbusd" in line]
    assert len(dots) >= 8
    assert all("%ymm" in line for line in dots)


def test_a_report_sets_cycles_beside_what_memory_gives(assemblies):
    core, text = pick("cortex-a76"), assemblies["cortex-a76"]["matvec_int8"]
    report = asm.examine("matvec_int8", core, text)
    part = report.parts[0]
    assert part.hot
    assert part.stream_bytes == 64 * part.kinds["dot"] / 4, "each byte of weights is read once"
    assert part.other_bytes == part.stream_bytes / 16, "and each of x once for sixteen rows"
    (feed,) = (feed for feed in report.feeds if feed.device == "rpi5")
    assert feed.bytes_per_cycle == pytest.approx(feed.read_bandwidth / feed.clock_hz)
    assert any("CortexA57Model" in limit for limit in report.limits)
    if mca.tool() and part.cycles.cycles:
        # two vector units at most start an instruction a cycle each, and no core starts ten
        assert sum(part.kinds.values()) / 10 < part.cycles.cycles < sum(part.kinds.values())
        assert part.bytes_per_cycle == pytest.approx(part.stream_bytes / part.cycles.cycles)
    else:
        assert "llvm-mca" in part.cycles.why


def test_without_llvm_mca_a_report_says_so(assemblies, monkeypatch):
    monkeypatch.setenv("PATH", "")
    mca.tool.cache_clear()
    try:
        report = asm.examine("matvec_int8", pick("cortex-a72"), assemblies["cortex-a72"]["mcsd"])
        assert report.parts[0].cycles.why == mca.INSTALL
        assert report.parts[0].bytes_per_cycle is None
    finally:
        mca.tool.cache_clear()


# ---- names --------------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"^unknown CPU 'cortex-a77'; close: cortex-a7\d"):
        asm.asm("matvec_int8", "cortex-a77")
    with pytest.raises(UnknownName, match="unknown kernel 'matvec'; known: attention"):
        asm.asm("matvec", "cortex-a76")


@pytest.mark.parametrize("name", list(known()))
def test_every_core_is_one_that_llvm_knows(name, capfd):
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    core = pick(name)
    llvm.Target.from_triple(core.triple).create_target_machine(cpu=name)
    assert "not a recognized" not in capfd.readouterr().err


def test_the_verb_prints_json_that_names_the_loops():
    command = [sys.executable, "-m", "harness", "asm", "glu", "--cpu", "cortex-a72", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["core"]["name"] == "cortex-a72"
    assert report["parts"][0]["loop"]["lines"]
    assert lowering.FOREIGN not in report["assembly"]
