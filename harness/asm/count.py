"""Instructions of a loop -> how many there are of each kind, and how many bytes they read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

# ---- kinds -------------------------------------------------------------------------------------

DOT = re.compile(r"v?p?dpbusds?|v?p?dpwssds?|(s|u|su|us|bf)(dot|mmla)|v?dpbf16ps")
MULTIPLY = re.compile(r"v?f?n?m(add|sub|la|ls|ul)|v?p?mul|v?fn?m|pmadd|mla|mls|mul")
VECTOR = re.compile(r"\b[vz]\d+\.|\{\s*[vz]\d|%[yz]mm\d|\bq\d+\b")
ADDRESS = re.compile(r"x\d+")
SCALAR_FLOAT = re.compile(r"(ss|sd)$")
BRANCHES = re.compile(r"(b|b\.\w+|bl|blr|cbn?z|tbn?z|ret|j[a-z]+|callq?)$")


def kind(instruction: str) -> str:
    """dot, multiply, vector, load, store, scalar multiply, scalar or branch.

    A product of 64-bit integers is scalar: it finds a place in memory, and is no work on data.
    """
    name, operands = _split(instruction)
    if BRANCHES.match(name):
        return "branch"
    if "%" in operands:
        return _x86_kind(name, operands)
    if re.match(r"ld|st[rpu1-4bn]", name):
        return "load" if name.startswith("ld") else "store"
    vector = bool(VECTOR.search(operands))
    if DOT.match(name):
        return "dot"
    if MULTIPLY.search(name) and not ADDRESS.match(operands):
        return "multiply" if vector else "scalar multiply"
    return "vector" if vector else "scalar"


def _x86_kind(name: str, operands: str) -> str:
    packed = bool(VECTOR.search(operands)) or ("%xmm" in operands and not SCALAR_FLOAT.search(name))
    if DOT.match(name):
        return "dot"
    if MULTIPLY.search(name) and name != "imulq":
        return "multiply" if packed else "scalar multiply"
    if re.match(r"v?p?mov|v?pbroadcast|vbroadcast", name) and "(" in operands:
        return "store" if operands.rstrip().endswith(")") else "load"
    return "vector" if packed else "scalar"


def kinds(instructions: Sequence[str]) -> Mapping[str, int]:
    return dict(Counter(map(kind, instructions)).most_common())


def mnemonics(instructions: Sequence[str]) -> Mapping[str, int]:
    return dict(Counter(_split(line)[0] for line in instructions).most_common())


# ---- bytes -------------------------------------------------------------------------------------

WIDTHS = {"b": 1, "h": 2, "s": 4, "w": 4, "d": 8, "x": 8, "q": 16}
SUFFIXES = {"b": 1, "w": 2, "l": 4, "q": 8}
ARM_ADDRESS = re.compile(r"\[([^\]]*)\]")
X86_ADDRESS = re.compile(r"(?:%fs:|%gs:)?-?\w*\(([^)]*)\)")
APART = {"sp": "stack", "rsp": "stack", "rip": "constants"}  # what is no stream of data


def streams(instructions: Sequence[str]) -> Mapping[str, int]:
    """Bytes that are read through each pair of address registers, most first.

    What is read back from the stack and constants go by these names.
    """
    read = Counter[str]()
    for instruction in instructions:
        place, count = _read(instruction)
        if count:
            read[place] += count
    return dict(read.most_common())


def data(instructions: Sequence[str]) -> list[int]:
    """The bytes of each stream of data, most first."""
    return [n for place, n in streams(instructions).items() if place not in APART.values()]


def _read(instruction: str) -> tuple[str, int]:
    name, operands = _split(instruction)
    if "%" in operands:
        return _x86_read(name, operands)
    address = ARM_ADDRESS.findall(operands)
    if not name.startswith("ld") or not address:
        return "", 0
    where = _registers(re.findall(r"\b[xw]\d+\b|\bsp\b", address[-1]))
    targets = operands[: operands.rindex("[")]
    return where, _arm_width(name, targets)


def _arm_width(name: str, targets: str) -> int:
    """Bytes that an AArch64 load writes to its registers, or repeats in them."""
    lists = re.findall(r"[vz]\d+\.(\d*)([bhsd])", targets)
    if lists:
        lanes, letter = lists[0]
        one = name.endswith("r") or "}[" in targets.replace(" ", "") or not lanes
        if targets.lstrip().startswith("{") and "z" in targets:
            return 0 if one and name.startswith("ld1r") else 16 * len(lists)  # of 128-bit cores
        return WIDTHS[letter] * len(lists) * (1 if one else int(lanes))
    if name.startswith(("ldrb", "ldurb", "ldrsb", "ldursb")):
        return 1
    if name.startswith(("ldrh", "ldurh", "ldrsh", "ldursh")):
        return 2
    if name.startswith(("ldrsw", "ldursw")):
        return 4
    registers = re.findall(r"\b([bhsdqwx])(?:\d+|zr)\b", targets)
    return sum(WIDTHS[letter] for letter in registers)


def _x86_read(name: str, operands: str) -> tuple[str, int]:
    address = X86_ADDRESS.search(operands)
    stored = operands.rstrip().endswith(")") and not name.startswith(("cmp", "test", "vucomi"))
    if not address or stored or name.startswith(("lea", "prefetch", "nop")):
        return "", 0
    where = _registers(re.findall(r"%(r\w+)", address[1]))
    return where, _x86_width(name, operands)


def _x86_width(name: str, operands: str) -> int:
    if "{1to" in operands:
        return 8 if name.endswith("pd") or "q" in name[-2:] else 4
    if found := re.search(r"broadcast(\w*)", name):
        return {"b": 1, "w": 2, "d": 4, "ss": 4, "q": 8, "sd": 8}.get(found[1], 16)
    widest = next((w for r, w in (("%z", 64), ("%y", 32), ("%x", 16)) if r in operands), 0)
    if widest:
        if found := re.match(r"v?pmov[sz]x(..)", name):
            ratio = {"bw": 2, "wd": 2, "dq": 2, "bd": 4, "wq": 4, "bq": 8}
            return widest // ratio[found[1]]
        if name.startswith(("vcvtph2ps", "vcvtps2pd")):
            return widest // 2
        if name.endswith("ss") or name in ("vmovd", "movd", "vpinsrd", "vinsertps"):
            return 4
        return 8 if name.endswith("sd") or name in ("vmovq", "movq", "vpinsrq") else widest
    if found := re.match(r"mov[sz]([bwl])", name):
        return SUFFIXES[found[1]]
    return SUFFIXES.get(name[-1], 8)


def _registers(found: Sequence[str]) -> str:
    return APART.get(found[0], "+".join(found)) if found else "constants"


def _split(instruction: str) -> tuple[str, str]:
    """Mnemonic and operands, without the prefixes that an assembler prints."""
    words = instruction.split(None, 1)
    if words[0].startswith("{") or words[0] in ("rep", "lock"):
        words = words[1].split(None, 1)
    return words[0], words[1] if len(words) > 1 else ""
