"""Assembly -> its innermost loops, however many blocks they have and wherever those stand.

A function is a graph of blocks; what can reach itself is a loop, and so is what still can without
the edges that lead back to where the loop is entered.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

LABEL = re.compile(r"^(\.?L?BB\d+_\d+):")
FUNCTION = re.compile(r"^([A-Za-z_$\"][^:\s]*):")
TARGET = re.compile(r"(\.?L?BB\d+_\d+)\s*$")
JUMPS = re.compile(r"(b(\.\w+)?|cbn?z|tbn?z|j[a-z]+)$")  # of AArch64 and x86
ENDS = ("b", "jmp", "jmpq", "ret", "retq", "br", "ud2", "udf", "brk")

Edges = Mapping[int, Collection[int]]


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop: where it is, how deep, and its instructions in the order they stand."""

    function: str
    label: str
    depth: int  # 1 for a loop in no other one
    lines: tuple[str, ...]
    blocks: int


@dataclass(slots=True)
class _Block:
    label: str
    lines: list[str]


def innermost(assembly: str) -> list[Loop]:
    """All loops that hold no other loop, in the order of the text."""
    return [loop for name, blocks in _functions(assembly) for loop in _loops(name, blocks)]


def _functions(assembly: str) -> Iterator[tuple[str, list[_Block]]]:
    name, blocks = "", list[_Block]()
    for line in assembly.splitlines():
        if label := LABEL.match(line):
            blocks.append(_Block(label[1], []))
        elif (found := FUNCTION.match(line)) and not line.startswith((".L", "Lfunc")):
            if blocks:
                yield name, blocks
            name, blocks = found[1].strip('"'), [_Block("", [])]
        elif line.startswith("\t") and not line.startswith("\t.") and blocks:
            instruction = line.strip()
            if instruction.startswith(("#", "//")):
                continue
            blocks[-1].lines.append(instruction)
            mnemonic = instruction.split()[0]
            # what follows an unconditional jump has a label, or is never reached
            if JUMPS.match(mnemonic) and mnemonic not in ENDS:
                blocks.append(_Block("", []))
    if blocks:
        yield name, blocks


def _loops(name: str, blocks: list[_Block]) -> Iterator[Loop]:
    places = {block.label: i for i, block in enumerate(blocks) if block.label}
    edges: dict[int, set[int]] = {}
    for i, block in enumerate(blocks):
        last = block.lines[-1] if block.lines else ""
        mnemonic = last.split()[0] if last else ""
        edges[i] = set()
        if JUMPS.match(mnemonic) and (target := TARGET.search(last)):
            edges[i].add(places[target[1]])
        if mnemonic not in ENDS and i + 1 < len(blocks):
            edges[i].add(i + 1)
    for members, depth in _nested(edges, 1):
        inside = sorted(members)
        lines = tuple(line for i in inside for line in blocks[i].lines)
        label = next((blocks[i].label for i in inside if blocks[i].label), "")
        count = sum(bool(blocks[i].lines) for i in inside)
        yield Loop(name, label, depth, lines, count)


def _nested(edges: Edges, depth: int) -> Iterator[tuple[set[int], int]]:
    """The blocks of each innermost loop, and its depth."""
    for members in _cycles(edges):
        entries = {
            to for at, all_ in edges.items() if at not in members for to in all_ if to in members
        } or {min(members)}
        inner = {at: {to for to in edges[at] if to in members - entries} for at in members}
        deeper = list(_nested(inner, depth + 1))
        yield from deeper or [(members, depth)]


def _cycles(edges: Edges) -> list[set[int]]:
    """Sets of blocks that all reach each other (Kosaraju), in the order of their first one."""
    order, seen = list[int](), set[int]()
    for start in edges:
        stack = [(start, iter(edges[start]))] if start not in seen else []
        seen.add(start)
        while stack:
            at, rest = stack[-1]
            following = next((to for to in rest if to not in seen), None)
            if following is None:
                order.append(stack.pop()[0])
            else:
                seen.add(following)
                stack.append((following, iter(edges[following])))
    backwards: dict[int, set[int]] = {at: set() for at in edges}
    for at, all_ in edges.items():
        for to in all_:
            backwards[to].add(at)
    found, taken = list[set[int]](), set[int]()
    for start in reversed(order):
        members, todo = set[int](), [start]
        while todo:
            at = todo.pop()
            if at not in taken:
                taken.add(at)
                members.add(at)
                todo += backwards[at] - taken
        if len(members) > 1 or (members and start in edges[start]):
            found.append(members)
    return sorted(found, key=min)
