"""The nodes of a parsed expression; ``at`` is the character position in the source, counted from 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    at: int
    value: Any


@dataclass(frozen=True, slots=True)
class Root:
    """``$``: the whole context."""

    at: int


@dataclass(frozen=True, slots=True)
class Name:
    """The variable of an enclosing macro."""

    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """``target.key`` or ``target[key]``; null where there is no such member."""

    at: int
    target: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Unary:
    """``!x`` or ``-x``."""

    at: int
    sign: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """Two operands and the sign between them."""

    at: int
    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Conditional:
    """``test ? then : otherwise``."""

    at: int
    test: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class ListOf:
    """``[a, b]``."""

    at: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """``{"a": b}``."""

    at: int
    entries: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments, the receiver first."""

    at: int
    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Macro:
    """``target.map(x, body)`` and its kin; ``only`` is the filter of the three-argument map."""

    at: int
    macro: str
    target: Node
    variable: str
    only: Node | None
    body: Node


Node = Literal | Root | Name | Member | Unary | Binary | Conditional | ListOf | MapOf | Call | Macro

#: a place in the context, such as ("inputs", "*", "title"): "*" stands for any element
Path = tuple[str, ...]
#: last in a path: how many members there are, and nothing of what they hold
MEMBERS: Final = "#"


def paths(node: Node, variables: Mapping[str, Path | None] | None = None) -> Iterator[Path]:
    """Every path of the context that ``node`` may read, macro variables followed to what they range over."""
    scope = variables or {}
    whole = path_of(node, scope)
    if whole is not None:
        yield whole
        yield from _computed_keys(node, scope)
        return
    if isinstance(node, Macro):
        ranged = path_of(node.target, scope)
        inner = {**scope, node.variable: None if ranged is None else (*ranged, "*")}
        if ranged is None:
            yield from paths(node.target, scope)
        else:  # walked over, not read: what the body reads of its members is said by the body
            yield (*ranged, MEMBERS)
            yield from _computed_keys(node.target, scope)
        for part in (node.only, node.body):
            if part is not None:
                yield from paths(part, inner)
        return
    for child in children(node):
        yield from paths(child, scope)


def _computed_keys(node: Node, scope: Mapping[str, Path | None]) -> Iterator[Path]:
    while isinstance(node, Member):
        if not isinstance(node.key, Literal):
            yield from paths(node.key, scope)
        node = node.target


def path_of(node: Node, variables: Mapping[str, Path | None]) -> Path | None:
    """The path that ``node`` is, or None if it is anything but a path."""
    match node:
        case Root():
            return ()
        case Name(name=name):
            return variables.get(name)
        case Member(target=target, key=Literal(value=key)):
            base = path_of(target, variables)
            return None if base is None else (*base, key if isinstance(key, str) else "*")
        case Member(target=target):
            base = path_of(target, variables)
            return None if base is None else (*base, "*")
    return None


def children(node: Node) -> tuple[Node, ...]:  # noqa: PLR0911 - one return per kind
    """The direct parts of a node."""
    match node:
        case Member(target=target, key=key):
            return (target, key)
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Conditional(test=test, then=then, otherwise=otherwise):
            return (test, then, otherwise)
        case ListOf(items=items):
            return items
        case MapOf(entries=entries):
            return tuple(part for entry in entries for part in entry)
        case Call(arguments=arguments):
            return arguments
        case Macro(target=target, only=only, body=body):
            return (target, body) if only is None else (target, only, body)
    return ()
