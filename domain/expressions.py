"""Expressions of provider definitions: compiled once, evaluated within a budget, without side effects.

The language is the core of CEL with the seeds' sugar (``expression_syntax.py``). It is evaluated here and not by
``cel-expr-python``, because version 0.1.3 drops a reference to None whenever a null leaves it, which aborts a
Python 3.11 process after about 5,000 nulls, and because its ``map`` over 10,000 items takes 5 s that nothing can
interrupt (both measured). The tests hold this evaluator against that library where the two languages agree.

Where they differ, on purpose: a missing member is null; ``||`` yields its left operand unless that is null or
false; ``/`` always yields a float; integers and floats mix; ``+`` joins numbers, texts or lists.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain import expression_tree as tree
from domain.canonical import canonical, escaped
from domain.errors import Invalid
from domain.expression_functions import (
    IMPLEMENTATIONS,
    Failure,
    Meter,
    equal,
    finite,
    members,
    number,
    order,
    type_name,
)
from domain.expression_syntax import parse
from domain.expression_tree import Node, Path

_PREFIX: Final = "$."
_INTERPOLATION: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
CACHE_ENTRIES: Final = 4096


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression; ``paths`` are the places of the context that it may read."""

    source: str
    paths: frozenset[Path]
    _tree: Node = field(repr=False)

    def evaluate(self, context: Mapping[str, Any]) -> Any:
        """The plain JSON value of this expression in ``context``.

        Raises ``Invalid``: expression_failed (an operand has the wrong type), expression_budget_exceeded.
        """
        meter = Meter()
        value = _Evaluation(context, meter).of(self._tree)
        _check_plain(value, meter)
        return value


@functools.lru_cache(maxsize=CACHE_ENTRIES)
def compile_expression(source: str) -> Expression:
    """Check and compile ``source``; raises ``Invalid`` (invalid_expression) with ``members['position']``."""
    node = parse(source)
    return Expression(source, frozenset(tree.paths(node)), node)


def is_expression(value: Any) -> bool:
    """Whether a value in a template is an expression: text that begins with ``$.``."""
    return isinstance(value, str) and value.startswith(_PREFIX)


def resolve(template: Any, context: Mapping[str, Any]) -> Any:
    """``template`` with each expression in it replaced by its value; keys whose value is null are left out."""
    if is_expression(template):
        return compile_expression(template).evaluate(context)
    if isinstance(template, Mapping):
        pairs = ((key, resolve(part, context)) for key, part in template.items())
        return {key: value for key, value in pairs if value is not None}
    if isinstance(template, list | tuple):
        return [resolve(part, context) for part in template]
    return template


def sources(template: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Every expression in a template with the JSON Pointer of its place."""
    if is_expression(template):
        yield pointer, template
    elif isinstance(template, Mapping):
        for key, part in template.items():
            yield from sources(part, f"{pointer}/{escaped(str(key))}")
    elif isinstance(template, list | tuple):
        for index, part in enumerate(template):
            yield from sources(part, f"{pointer}/{index}")


def interpolations(text: str) -> list[str]:
    """The expressions of a text template: itself if it is one, else what stands between ``{{`` and ``}}``."""
    return [text] if is_expression(text) else [source.strip() for source in _INTERPOLATION.findall(text)]


def render(text: str, context: Mapping[str, Any]) -> Any:
    """A text template with its expressions filled in, null as nothing; an expression alone keeps its type."""
    if is_expression(text):
        return compile_expression(text).evaluate(context)

    def filled(match: re.Match[str]) -> str:
        value = compile_expression(match.group(1).strip()).evaluate(context)
        return value if isinstance(value, str) else "" if value is None else canonical(value).decode()

    return _INTERPOLATION.sub(filled, text)


def _check_plain(value: Any, meter: Meter) -> None:
    """Charge for what is handed out: a list may name one long text a thousand times."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            meter.chars(len(part))
        elif isinstance(part, list | tuple):
            meter.members(len(part))
            waiting.extend(part)
        elif isinstance(part, Mapping):
            meter.members(len(part))
            waiting.extend(part.values())


class _Evaluation:
    """One walk over a tree; the depth of trees is bounded when they are parsed."""

    __slots__ = ("_context", "_meter", "_variables")

    def __init__(self, context: Mapping[str, Any], meter: Meter) -> None:
        self._context = context
        self._meter = meter
        self._variables: dict[str, Any] = {}

    def of(self, node: Node) -> Any:
        self._meter.units(1)
        try:
            return _EVALUATORS[type(node)](self, node)
        except Failure as failure:
            raise Invalid(
                f"{failure} (at character {node.at + 1})",
                code="expression_failed",
                members={"position": node.at},
            ) from None

    def boolean(self, node: Node, what: str) -> bool:
        value = self.of(node)
        if not isinstance(value, bool):
            raise Failure(f"{what} needs a boolean, not {type_name(value)}")
        return value

    def root(self, _: tree.Root) -> Any:
        return self._context

    def literal(self, node: tree.Literal) -> Any:
        return node.value

    def name(self, node: tree.Name) -> Any:
        return self._variables[node.name]

    def member(self, node: tree.Member) -> Any:
        target, key = self.of(node.target), self.of(node.key)
        if isinstance(target, Mapping):
            return target.get(key) if isinstance(key, str) else None
        if isinstance(target, list | tuple) and isinstance(key, int) and not isinstance(key, bool):
            return target[key] if -len(target) <= key < len(target) else None
        return None

    def unary(self, node: tree.Unary) -> Any:
        if node.sign == "!":
            return not self.boolean(node.operand, "!")
        return finite(-number(self.of(node.operand), "-"))

    def binary(self, node: tree.Binary) -> Any:  # noqa: PLR0911 - one return per sign
        match node.sign:
            case "||":
                return self._either(node)
            case "&&":
                return self.boolean(node.left, "&&") and self.boolean(node.right, "&&")
        left, right = self.of(node.left), self.of(node.right)
        if node.sign in _ORDERS:
            return _ORDERS[node.sign](order(left, right, node.sign, self._meter))
        match node.sign:
            case "==":
                return equal(left, right, self._meter)
            case "!=":
                return not equal(left, right, self._meter)
            case "in":
                return self._within(left, right)
            case "+":
                return self._sum(left, right)
        return self._arithmetic(node.sign, number(left, node.sign), number(right, node.sign))

    def _either(self, node: tree.Binary) -> Any:
        left = self.of(node.left)
        if left is None:
            return self.of(node.right)
        if left is False:
            return self.of(node.right) is True
        return left

    def _within(self, item: Any, whole: Any) -> bool:
        if isinstance(whole, Mapping):
            return item in whole if isinstance(item, str) else False
        return any(equal(item, part, self._meter) for part in members(whole, "in"))

    def _sum(self, left: Any, right: Any) -> Any:
        if isinstance(left, str) and isinstance(right, str):
            self._meter.chars(len(left) + len(right))
            return left + right
        if isinstance(left, list | tuple) and isinstance(right, list | tuple):
            self._meter.members(len(left) + len(right))
            return [*left, *right]
        if type_name(left) != type_name(right):
            raise Failure(f"+ cannot add {type_name(right)} to {type_name(left)}")
        return finite(number(left, "+") + number(right, "+"))

    @staticmethod
    def _arithmetic(sign: str, left: float, right: float) -> int | float:
        try:
            match sign:
                case "-":
                    return finite(left - right)
                case "*":
                    return finite(left * right)
                case "%":
                    return finite(_remainder(left, right))
            return finite(left / right)
        except ZeroDivisionError:
            raise Failure("division by zero") from None

    def conditional(self, node: tree.Conditional) -> Any:
        return self.of(node.then if self.boolean(node.test, "? :") else node.otherwise)

    def list_of(self, node: tree.ListOf) -> list[Any]:
        return [self.of(item) for item in node.items]

    def map_of(self, node: tree.MapOf) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.entries:
            name = self.of(key)
            if not isinstance(name, str):
                raise Failure(f"the key of a map is text, not {type_name(name)}")
            made[name] = self.of(value)
        return made

    def call(self, node: tree.Call) -> Any:
        if node.function == "has":
            return self.of(node.arguments[0]) is not None
        if node.function == "coalesce":
            return next((value for part in node.arguments if (value := self.of(part)) is not None), None)
        return IMPLEMENTATIONS[node.function](self._meter, *(self.of(part) for part in node.arguments))

    def macro(self, node: tree.Macro) -> Any:
        ranged = self.of(node.target)
        items = sorted(ranged) if isinstance(ranged, Mapping) else members(ranged, f"{node.macro}()")
        before = self._variables
        try:
            return _MACROS[node.macro](self._each(node, items, before), self, node)
        finally:
            self._variables = before

    def _each(self, node: tree.Macro, items: list[Any], before: dict[str, Any]) -> Iterator[Any]:
        for item in items:
            self._variables = {**before, node.variable: item}
            yield item


def _remainder(left: float, right: float) -> int | float:
    """With the sign of the dividend, as in CEL, C and JavaScript; Python's own has that of the divisor."""
    if isinstance(left, int) and isinstance(right, int):
        return abs(left) % abs(right) * (1 if left >= 0 else -1)
    return math.fmod(left, right) if right else left / right


def _mapped(items: Iterator[Any], at: _Evaluation, node: tree.Macro) -> list[Any]:
    kept = (True for _ in items) if node.only is None else (at.boolean(node.only, "map()") for _ in items)
    return [at.of(node.body) for keep in kept if keep]


def _exactly_one(items: Iterator[Any], at: _Evaluation, node: tree.Macro) -> bool:
    return sum(at.boolean(node.body, "exists_one()") for _ in items) == 1


_MACROS: Final[dict[str, Callable[[Iterator[Any], _Evaluation, tree.Macro], Any]]] = {
    "map": _mapped,
    "filter": lambda items, at, node: [item for item in items if at.boolean(node.body, "filter()")],
    "exists": lambda items, at, node: any(at.boolean(node.body, "exists()") for _ in items),
    "all": lambda items, at, node: all(at.boolean(node.body, "all()") for _ in items),
    "exists_one": _exactly_one,
}
_ORDERS: Final[dict[str, Callable[[int], bool]]] = {
    "<": lambda compared: compared < 0,
    "<=": lambda compared: compared <= 0,
    ">": lambda compared: compared > 0,
    ">=": lambda compared: compared >= 0,
}
_EVALUATORS: Final[dict[type, Callable[[_Evaluation, Any], Any]]] = {
    tree.Root: _Evaluation.root,
    tree.Literal: _Evaluation.literal,
    tree.Name: _Evaluation.name,
    tree.Member: _Evaluation.member,
    tree.Unary: _Evaluation.unary,
    tree.Binary: _Evaluation.binary,
    tree.Conditional: _Evaluation.conditional,
    tree.ListOf: _Evaluation.list_of,
    tree.MapOf: _Evaluation.map_of,
    tree.Call: _Evaluation.call,
    tree.Macro: _Evaluation.macro,
}
