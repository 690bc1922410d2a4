"""A kind of thing -> every one there is, with a line that says what it is."""

from __future__ import annotations

from pathlib import Path

from harness import candidates, plugins, sizes
from harness.errors import UnknownName
from harness.peers import groups
from targets import profile

STEPS = ("", "@int8", "@int4", "@sparse50", "@prune50+int8", "@distil+int8")


def entries(kind: str, devices: Path | None = None) -> dict[str, str]:
    """Name -> summary. Raises UnknownName on an unknown kind."""
    match kind:
        case "devices":
            return {d.name: d.summary for d in profile.load_all(devices)}
        case "kernels":
            return {
                name: _first_line(k.run.__module__) for name, k in plugins.kernel_specs().items()
            }
        case "mixers":
            return {name: m.source for name, m in plugins.mixers().items()}
        case "ffns":
            return {name: f.source for name, f in plugins.ffns().items()}
        case "formats":
            return {name: f.summary for name, f in plugins.formats().items()}
        case "transforms":
            return {name: t.summary for name, t in plugins.transforms().items()}
        case "corpora":
            return {name: c.summary for name, c in plugins.corpora().items()}
        case "engines":
            return {name: e.summary for name, e in plugins.engines().items()}
        case "groups":
            return {name: g.summary for name, g in groups.every().items()}
        case "metrics":
            return {
                name: f"[{m.unit or '1'}] {m.better} is better"
                for name, m in plugins.metrics().items()
            }
        case "sizes":
            return {
                name: sizes.summary(name) + _stand_in(f"attention:{name}") for name in sizes.names()
            }
        case "candidates":
            return _counts()
    known = "devices kernels mixers ffns formats transforms corpora engines groups sizes metrics"
    known += " candidates"
    raise UnknownName(f"cannot list {kind!r}; known: {', '.join(known.split())}")


def _counts() -> dict[str, str]:
    """Parameters of every mixer at every size, so that their equality can be seen."""
    found = {}
    for size in sizes.names():
        for mixer in plugins.mixers():
            for ffn in plugins.ffns():
                name = f"{mixer}:{size}" if ffn == "dense" else f"{mixer}+{ffn}:{size}"
                try:
                    recipe = candidates.parse(name)
                except UnknownName:
                    continue  # a size without that mixer
                count = candidates.parameters(recipe.shape)
                off = count / sizes.stated_parameters(size) - 1
                found[name] = f"{count:,} parameters, {off:+.1%} of the size's" + _stand_in(name)
    return found


def _stand_in(name: str) -> str:
    return "".join(f"; {doubt}" for doubt in candidates.doubts(name))


def _first_line(module: str) -> str:
    import sys

    return (sys.modules[module].__doc__ or "").strip().splitlines()[0]
