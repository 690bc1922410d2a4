"""`mcsd@int8 - mcsd`, `accuracy(hybrid)`, `min(a, b:sliding)` -> a tree -> a number for each seed.

A name is an arm, with a step after "@" and a protocol after ":". In brackets after a word it is
that figure of the arm; by itself it is the loss in nats, or whatever else the arm is scored in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from harness.errors import BadInput

TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(\.\d*)?(e-?\d+)?)"
    r"|(?P<name>[a-z][a-z0-9_.]*)(@(?P<step>[a-z0-9]+(\+[a-z0-9]+)*))?(:(?P<protocol>[a-z]+))?"
    r"|(?P<mark>[-+*/(),]))"
)
CHOICES: Mapping[str, Callable[[float, float], float]] = {"min": min, "max": max}
ACTIONS: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else math.nan,
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A figure ("" is the score itself) of an arm, after a step ("" is none), by a protocol."""

    arm: str
    step: str = ""
    protocol: str = ""
    figure: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    left: Node
    right: Node


Node: TypeAlias = float | Reference | Operation
BySeed: TypeAlias = Mapping[int, float]


def parse(text: str) -> Node:
    """The tree of an expression. Raises BadInput with the place of the first mistake."""
    tokens, place = [], 0
    while text[place:].strip():
        match = TOKEN.match(text, place)
        if match is None:
            raise BadInput(f"{text!r}: cannot read {text[place:].strip()!r}")
        tokens.append(match)
        place = match.end()
    node, rest = _sum(text, tokens)
    if rest:
        raise BadInput(f"{text!r}: there is something left over: {rest[0][0].strip()!r}")
    return node


def references(node: Node) -> Iterator[Reference]:
    if isinstance(node, Reference):
        yield node
    elif isinstance(node, Operation):
        yield from references(node.left)
        yield from references(node.right)


def evaluate(node: Node, values: Callable[[Reference], BySeed]) -> BySeed | float:
    """A number for each seed that all of the arms have; a number alone where no arm is named."""
    if isinstance(node, Reference):
        return values(node)
    if not isinstance(node, Operation):
        return node
    action = {**ACTIONS, **CHOICES}[node.name]
    left, right = evaluate(node.left, values), evaluate(node.right, values)
    if isinstance(left, float) and isinstance(right, float):
        return action(left, right)
    if isinstance(left, float):
        return {seed: action(left, b) for seed, b in right.items()}  # type: ignore[union-attr]
    if isinstance(right, float):
        return {seed: action(a, right) for seed, a in left.items()}
    return {seed: action(left[seed], right[seed]) for seed in left if seed in right}


Tokens: TypeAlias = list[re.Match[str]]


def _sum(text: str, tokens: Tokens) -> tuple[Node, Tokens]:
    node, tokens = _product(text, tokens)
    while tokens and tokens[0]["mark"] in ("+", "-"):
        right, rest = _product(text, tokens[1:])
        node, tokens = Operation(tokens[0]["mark"], node, right), rest
    return node, tokens


def _product(text: str, tokens: Tokens) -> tuple[Node, Tokens]:
    node, tokens = _atom(text, tokens)
    while tokens and tokens[0]["mark"] in ("*", "/"):
        right, rest = _atom(text, tokens[1:])
        node, tokens = Operation(tokens[0]["mark"], node, right), rest
    return node, tokens


def _atom(text: str, tokens: Tokens) -> tuple[Node, Tokens]:
    if not tokens:
        raise BadInput(f"{text!r} ends too soon")
    first, rest = tokens[0], tokens[1:]
    if first["number"]:
        return float(first["number"]), rest
    if first["mark"] == "(":
        node, rest = _sum(text, rest)
        return node, _after(")", text, rest)
    if not first["name"]:
        raise BadInput(f"{text!r}: expected an arm or a number, found {first[0].strip()!r}")
    if not rest or rest[0]["mark"] != "(":
        return Reference(first["name"], first["step"] or "", first["protocol"] or ""), rest
    node, rest = _sum(text, rest[1:])
    if first["name"] in CHOICES:
        while rest and rest[0]["mark"] == ",":
            right, rest = _sum(text, rest[1:])
            node = Operation(first["name"], node, right)
    elif isinstance(node, Reference) and not node.figure:
        node = Reference(node.arm, node.step, node.protocol, first["name"])
    else:
        raise BadInput(f"{text!r}: {first['name']}(...) takes the name of one arm")
    return node, _after(")", text, rest)


def _after(mark: str, text: str, tokens: Tokens) -> Tokens:
    if not tokens or tokens[0]["mark"] != mark:
        raise BadInput(f"{text!r} lacks a {mark!r}")
    return tokens[1:]
