"""The frame: the command line as a whole, the two commands, the sessions, what is tracked."""

from __future__ import annotations

import os
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.cli import load_verbs

ROOT = Path(__file__).parent.parent
APP = load_verbs()
COMMAND = typer.main.get_command(APP)
VERBS = sorted(COMMAND.commands)
HEAVY = ("torch", "numba", "llvmlite", "matplotlib", "pandas", "scipy", "pyarrow")


def run(*words, **environment):
    """`python -m harness WORDS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def parse(line):
    """The click context of a command line that begins with `edgewise`; raises on a wrong one."""
    words = shlex.split(line, comments=True)
    assert words[0] == "edgewise", line
    whole = COMMAND.make_context("edgewise", words[1:])
    name, verb, rest = COMMAND.resolve_command(whole, [*whole._protected_args, *whole.args])
    return verb.make_context(name, rest, parent=whole)


# ---- verbs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_help_with_an_example_that_it_accepts(verb):
    shown = CliRunner().invoke(APP, [verb, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    epilog = COMMAND.commands[verb].epilog
    assert epilog in " ".join(shown.output.split())
    head, _, examples = epilog.partition(": ")
    assert head in ("Example", "Examples")
    for example in examples.split("; "):
        assert parse(example).info_name == verb


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_of_a_verb_is_more_than_its_name(verb):
    about = (COMMAND.commands[verb] if verb else COMMAND).help
    assert len(about.split()) >= 5


def test_help_starts_light():
    code = f"""
import sys
from harness.cli import main
for words in ([], *([verb] for verb in {VERBS!r})):
    sys.argv = ["edgewise", *words, "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
print("HEAVY", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.skipif(os.name != "posix", reason="processor time of children")
def test_help_starts_fast():
    seconds = []
    for _ in range(5):
        before = os.times()
        assert run("--help").returncode == 0
        after = os.times()
        # Processor time: a busy machine does not change it much.
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
    assert statistics.median(seconds) < 0.5


def test_a_mistake_is_one_line_and_exit_code_2():
    done = run("list", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"edgewise: cannot list 'nonsense'; known: devices, .*\n", done.stderr)


def test_a_foreign_package_named_kernels_is_one_clear_error(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/__init__.py").write_text("def get_kernel(name): ...\n")
    code = (
        "import sys; sys.path[:0] = ['{}', '{}']; sys.argv = ['edgewise', 'list', 'kernels']\n"
        "from harness.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code.format(tmp_path, ROOT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("edgewise: the package 'kernels' found at ")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr


def test_a_missing_pytorch_is_one_clear_error(tmp_path):
    (tmp_path / "torch.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
    )
    done = run("verify", "glu", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("edgewise: this needs PyTorch")
    assert done.stderr.count("\n") == 1


# ---- the two commands and what is written about them ---------------------------------------------


def blocks(page):
    """Code blocks of a Markdown page, without the ones that a command filled in."""
    text = (ROOT / page).read_text("utf-8")
    text = re.sub(r"(?s)<!-- (\w+) -->.*?<!-- /\1 -->", "", text)
    return re.findall(r"(?ms)^ *```(\w*)\n(.*?)^ *```", text)


def test_ci_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    readme = [line for _, block in blocks("README.md") for line in block.splitlines()]
    (command,) = [line for line in readme if line.endswith("nox -s tests")]
    assert command in script
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "results/README.md"])
def test_every_command_that_a_page_shows_is_accepted(page):
    lines = [line for kind, block in blocks(page) if kind == "sh" for line in block.splitlines()]
    for line in lines:
        for part in re.split(r"&&|\||>", line):
            if part.split()[:1] == ["edgewise"]:
                parse(part.strip().removesuffix(" \\"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "results/README.md"])
def test_links_between_pages_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link


def test_the_kernel_in_contributing_is_complete(tmp_path):
    (code,) = [text for kind, text in blocks("CONTRIBUTING.md") if kind == "python"]
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/relu2.py").write_text(code)
    done = run("--plugins", str(tmp_path), "verify", "relu2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("relu2 ")


def test_the_device_in_contributing_is_complete(tmp_path):
    from targets import profile

    (text,) = [text for kind, text in blocks("CONTRIBUTING.md") if kind == "toml"]
    (tmp_path / "my_board.toml").write_text(text)
    assert profile.load("my_board", tmp_path).summary == "My board, 4 GB"


def test_the_errors_in_the_readme_are_those_of_the_table_of_truth():
    page = (ROOT / "README.md").read_text("utf-8")
    (block,) = re.findall(r"(?s)<!-- projection -->\n(.*?)<!-- /projection -->", page)
    truth = (ROOT / "results/projection/README.md").read_text("utf-8").splitlines()
    assert block.count("\n") > 8
    assert set(block.splitlines()) <= set(truth)


# ---- the menu ------------------------------------------------------------------------------------


def noxfile():
    pytest.importorskip("nox")
    import importlib.util

    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_menu_has_a_line_for_every_session_and_device():
    pytest.importorskip("nox")
    shown = subprocess.run(
        [sys.executable, "-m", "nox", "-l"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    menu = dict(re.findall(r"^[*-] (\S+) -> (.+)$", shown, re.MULTILINE))
    devices = {f"target({path.stem})" for path in (ROOT / "targets/devices").glob("*.toml")}
    plain = {"lint", "types", "tests", "gates", "verify", "sweep", "publish", "peers", "projection"}
    plain |= {"codesign", *(f"kernels({path})" for path in ("native", "plain", "avx2"))}
    plain |= {f"emulate({core})" for core in ("cortex-a72", "cortex-a76")}
    assert set(menu) == plain | devices
    assert menu["target(rpi5)"].startswith("Raspberry Pi 5")


def test_a_system_that_cannot_work_gets_one_line_before_anything_is_installed():
    unsupported = noxfile().unsupported
    gib = 2**30
    assert unsupported(8, 16 * gib, 100 * gib) == ""
    assert "32-bit" in unsupported(4, 16 * gib, 100 * gib)
    assert "0.5 GiB of memory" in unsupported(8, 0.5 * gib, 100 * gib)
    assert "1.0 GiB are free" in unsupported(8, 16 * gib, 1 * gib)
    assert unsupported(8, 0, 100 * gib) == ""  # a system that does not tell
    for line in (unsupported(4, gib, gib), unsupported(8, 1, gib), unsupported(8, gib * 2, 1)):
        assert "\n" not in line


# ---- what is tracked -----------------------------------------------------------------------------


def tracked():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name]


def test_no_tracked_file_names_a_machine_or_a_package_registry():
    private = re.compile(
        rb"(?<![\w.\-/])/(?:work|root|home|opt|Users)/(?!homebrew)|\.\./shared\b"
        rb"|\b(?:pypi\.org|pythonhosted\.org|artifactory|localhost:\d+)"
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in tracked()
        if path.is_file() and path.suffix != ".safetensors" and path != Path(__file__)
        for match in [private.search(path.read_bytes())]
        if match
    ]
    assert found == []
