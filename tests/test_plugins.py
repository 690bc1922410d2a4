"""One thing, one new place: what a file defines is found, what it gets wrong is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import plugins
from harness.errors import BadPlugin, UnknownName

ROOT = Path(__file__).parents[1]
TABLES = ("kernel_specs", "mixers", "ffns", "corpora", "metrics", "formats", "transforms")
FORMAT = "from dataclasses import replace\nfrom harness.formats import f32\nSPEC = {spec}\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's plugin folder, and tables that are read anew."""
    monkeypatch.setenv(plugins.PLUGINS, str(tmp_path))
    forget()
    yield tmp_path
    forget()


def forget():
    for table in TABLES:
        getattr(plugins, table).cache_clear()
    for name in [n for n in sys.modules if n.startswith("edgewise_plugins")]:
        del sys.modules[name]


def add(folder, path, text):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


@pytest.mark.parametrize("table", TABLES)
def test_names_are_those_of_files(table):
    found = getattr(plugins, table)()
    assert found
    assert all(name == spec.name for name, spec in found.items())


@pytest.mark.parametrize("table", [t for t in TABLES if t != "metrics"])
def test_everything_names_its_source(table):
    assert all(spec.source for spec in getattr(plugins, table)().values())


def test_a_name_nobody_knows_is_answered_with_those_there_are():
    with pytest.raises(UnknownName, match=r"^unknown mixer 'rwkv'; known: attention, .*mcsd"):
        plugins.pick(plugins.mixers(), "rwkv", "mixer")


def test_a_file_in_a_users_folder_is_one_more(own):
    add(own, "formats/f33.py", FORMAT.format(spec="replace(f32.SPEC, name='f33')"))
    add(own, "formats/_helper.py", "raise RuntimeError('helpers are not plugins')")
    assert plugins.formats()["f33"].bits == 32
    assert "f32" in plugins.formats()


def test_a_users_mixer_brings_its_own_halves(own):
    add(own, "mixers/mine/spec.py", "from dataclasses import replace\n"
        "from harness.mixers.mcsd import spec\n"
        "SPEC = replace(spec.SPEC, name='mine', folder='mine')\n")  # fmt: skip
    add(own, "mixers/mine/engine.py", "HALF = 'mine'\n")
    assert plugins.half(plugins.mixers()["mine"], "engine").HALF == "mine"
    assert plugins.half(plugins.mixers()["mcsd"], "engine").__name__ == "harness.mixers.mcsd.engine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must define SPEC = Format"),
        ("SPEC = 3", "must define SPEC = Format"),
        (FORMAT.format(spec="replace(f32.SPEC, name='other')"), "name='broken'"),
        ("def (", "SyntaxError"),
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("raise SystemError('on purpose')", "on purpose"),
    ],
)
def test_a_broken_plugin_is_named_with_its_file(own, text, words):
    add(own, "formats/broken.py", text)
    with pytest.raises(BadPlugin, match=words) as caught:
        plugins.formats()
    assert str(own / "formats" / "broken.py") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_cannot_take_a_name_that_exists(own):
    add(own, "formats/f32.py", FORMAT.format(spec="f32.SPEC"))
    with pytest.raises(BadPlugin, match="'f32', which exists already"):
        plugins.formats()


def test_a_plugin_folder_that_does_not_exist_is_said(own, monkeypatch):
    monkeypatch.setenv(plugins.PLUGINS, str(own / "absent"))
    with pytest.raises(BadPlugin, match=r"absent' does not exist"):
        plugins.formats()


def test_listing_mixers_and_formats_loads_no_torch():
    code = (
        "import sys\nfrom harness import plugins\n"
        "plugins.mixers(), plugins.ffns(), plugins.formats(), plugins.kernel_specs()\n"
        "plugins.transforms(), plugins.corpora(), plugins.metrics()\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, env=dict(os.environ))
    assert done.returncode == 0
