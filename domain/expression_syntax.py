"""The grammar of expressions: source text to a checked tree, every fault with its character position.

The language is the core of CEL (https://cel.dev) with the sugar of the seeds: paths begin with ``$``, ``||``
coalesces, ``len(x)`` and ``x.split()`` read as in Python. Each function may be called as ``f(x, y)`` or ``x.f(y)``.

    expression  := or [ "?" expression ":" expression ]
    or          := and { "||" and }            and   := relation { "&&" relation }
    relation    := sum { ( "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" ) sum }
    sum         := term { ( "+" | "-" ) term }  term := unary { ( "*" | "/" | "%" ) unary }
    unary       := { "!" | "-" } member
    member      := primary { "." name [ "(" arguments ")" ] | "[" expression "]" }
    primary     := "$" | name [ "(" arguments ")" ] | literal | "(" expression ")" | list | map
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from domain.errors import Invalid
from domain.expression_tree import (
    Binary,
    Call,
    Conditional,
    ListOf,
    Literal,
    Macro,
    MapOf,
    Member,
    Name,
    Node,
    Root,
    Unary,
)
from domain.patterns import compile_pattern

SOURCE_BYTES_MAX: Final = 4096
#: each level takes up to six frames of Python's stack, of which a request or an activity has about 800 left
DEPTH_MAX: Final = 48
INTEGER_MAX: Final = 2**63 - 1

#: name -> (fewest, most) arguments, the receiver counted; the meanings are in ``expression_functions.py``
FUNCTIONS: Final[dict[str, tuple[int, int]]] = {
    "abs": (1, 1),
    "coalesce": (1, 16),
    "contains": (2, 2),
    "double": (1, 1),
    "endsWith": (2, 2),
    "has": (1, 1),
    "int": (1, 1),
    "join": (1, 2),
    "keys": (1, 1),
    "len": (1, 1),
    "lower": (1, 1),
    "matches": (2, 2),
    "max": (1, 16),
    "min": (1, 16),
    "replace": (3, 3),
    "round": (1, 2),
    "size": (1, 1),
    "split": (1, 2),
    "startsWith": (2, 2),
    "string": (1, 1),
    "sum": (1, 1),
    "trim": (1, 1),
    "truncate": (2, 2),
    "upper": (1, 1),
}
MACROS: Final = ("map", "filter", "exists", "all", "exists_one")
_CONSTANTS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
#: the signs between operands, those that bind loosest first
_LEVELS: Final = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))
_BINDING: Final = {sign: level for level, signs in enumerate(_LEVELS) for sign in signs}

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<sign>\|\||&&|==|!=|<=|>=|[$.,:?()\[\]{}<>!+\-*/%])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "/": "/"}


@dataclass(frozen=True, slots=True)
class Token:
    """One lexical unit; ``kind`` is number, name, text, sign or end; ``at`` counts characters from 0."""

    kind: str
    text: str
    at: int


def refusal(detail: str, at: int) -> Invalid:
    """The error for a source that cannot be read; ``at`` counts characters from 0, people count from 1."""
    return Invalid(f"{detail} (at character {at + 1})", code="invalid_expression", members={"position": at})


def parse(source: str) -> Node:
    """Read ``source`` into a tree; raises ``Invalid`` (invalid_expression) with the first fault's position."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError as error:
        raise refusal("not valid Unicode text", error.start) from None
    if size > SOURCE_BYTES_MAX:
        raise refusal(f"an expression has at most {SOURCE_BYTES_MAX} bytes, this one {size}", SOURCE_BYTES_MAX)
    return _Parser(_tokens(source)).whole()


def _tokens(source: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise refusal(f"unexpected {source[at]!r}", at)
        if match.lastgroup != "space":
            tokens.append(Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    return [*tokens, Token("end", "", len(source))]


def _unquoted(token: Token) -> str:
    def replaced(match: re.Match[str]) -> str:
        escape = match.group(1)
        if escape[0] == "u" and len(escape) > 1:
            return chr(int(escape[1:], 16))
        if escape not in _ESCAPES:
            raise refusal(f"unknown escape \\{escape}", token.at + 1 + match.start())
        return _ESCAPES[escape]

    text = _ESCAPE.sub(replaced, token.text[1:-1])
    try:
        # \ud83d\ude00 is one character in JSON and JavaScript; a lone half cannot be stored as UTF-8
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise refusal("half of a surrogate pair", token.at) from None


def _number(token: Token) -> int | float:
    value: int | float = json.loads(token.text) if not token.text.isdigit() else int(token.text[:20])
    if isinstance(value, int) and (value > INTEGER_MAX or len(token.text) > 19):  # noqa: PLR2004 - digits of 2**63
        raise refusal("an integer has at most 64 bits", token.at)
    if value in (float("inf"), float("-inf")):
        raise refusal("the number is out of range", token.at)
    return value


class _Parser:
    """Recursive descent over the tokens; counts depth so that neither parsing nor evaluation can overflow."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._variables: list[str] = []

    def whole(self) -> Node:
        tree = self._expression()
        if self._peek.kind != "end":
            raise refusal(f"unexpected {self._peek.text!r}", self._peek.at)
        return tree

    @property
    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._peek
        self._next += token.kind != "end"
        return token

    def _accept(self, *texts: str) -> Token | None:
        token = self._peek
        if token.kind in ("sign", "name") and token.text in texts:
            return self._take()
        return None

    def _expect(self, text: str) -> Token:
        token = self._accept(text)
        if token is None:
            found = repr(self._peek.text) if self._peek.text else "the end"
            raise refusal(f"expected {text!r}, found {found}", self._peek.at)
        return token

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise refusal(f"nested deeper than {DEPTH_MAX}", at)

    def _expression(self) -> Node:
        start = self._peek.at
        depth = self._depth
        self._deeper(start)
        tree = self._binary(0)
        if self._accept("?"):
            then = self._expression()
            self._expect(":")
            tree = Conditional(start, tree, then, self._expression())
        self._depth = depth
        return tree

    def _binary(self, level: int) -> Node:
        """Signs that bind at least as tightly as ``level``, left-associative (precedence climbing).

        Each link counts as depth, because the tree leans to the left.
        """
        depth = self._depth
        tree = self._unary()
        while (binding := self._binding()) >= level:
            token = self._take()
            self._deeper(token.at)
            tree = Binary(token.at, token.text, tree, self._binary(binding + 1))
        self._depth = depth
        return tree

    def _binding(self) -> int:
        """How tightly the next token binds as a sign between operands; -1 if it is none."""
        token = self._peek
        return _BINDING.get(token.text, -1) if token.kind in ("sign", "name") else -1

    def _unary(self) -> Node:
        token = self._accept("!", "-")
        if token is None:
            return self._member()
        depth = self._depth
        self._deeper(token.at)
        tree = Unary(token.at, token.text, self._unary())
        self._depth = depth
        return tree

    def _member(self) -> Node:
        depth = self._depth
        tree = self._primary()
        while token := self._accept(".", "["):
            self._deeper(token.at)
            if token.text == "[":
                tree = Member(token.at, tree, self._expression())
                self._expect("]")
            else:
                tree = self._dotted(tree)
        self._depth = depth
        return tree

    def _dotted(self, target: Node) -> Node:
        name = self._take()
        if name.kind != "name":
            raise refusal('a name follows the point (or write ["a-b"])', name.at)
        if not self._accept("("):
            return Member(name.at, target, Literal(name.at, name.text))
        if name.text in MACROS:
            return self._macro(name, target)
        return self._call(name, (target,))

    def _call(self, name: Token, receiver: tuple[Node, ...]) -> Node:
        if name.text not in FUNCTIONS:
            near = difflib.get_close_matches(name.text, [*FUNCTIONS, *MACROS], n=1)
            hint = f"; did you mean {near[0]}()?" if near else f"; known: {', '.join((*FUNCTIONS, *MACROS))}"
            raise refusal(f"unknown function {name.text}(){hint}", name.at)
        arguments = receiver + self._sequence(")")
        fewest, most = FUNCTIONS[name.text]
        if not fewest <= len(arguments) <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise refusal(f"{name.text}() takes {wanted} arguments, not {len(arguments)}", name.at)
        if name.text == "matches":
            _check_pattern(arguments[1])
        return Call(name.at, name.text, arguments)

    def _macro(self, name: Token, target: Node) -> Node:
        variable = self._take()
        if variable.kind != "name" or variable.text in _CONSTANTS or variable.text == "in":
            raise refusal(f"{name.text}() begins with the name of a variable", variable.at)
        self._expect(",")
        self._variables.append(variable.text)
        parts = self._sequence(")")
        self._variables.pop()
        if len(parts) > (2 if name.text == "map" else 1) or not parts:
            raise refusal(f"{name.text}() takes a variable and an expression", name.at)
        return Macro(name.at, name.text, target, variable.text, parts[0] if len(parts) > 1 else None, parts[-1])

    def _sequence(self, closing: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._accept(closing):
            if items:
                self._expect(",")
            items.append(self._expression())
        return tuple(items)

    def _primary(self) -> Node:  # noqa: PLR0911 - one return per form
        token = self._take()
        if token.kind == "number":
            return Literal(token.at, _number(token))
        if token.kind == "text":
            return Literal(token.at, _unquoted(token))
        if token.kind == "name":
            return self._named(token)
        match token.text:
            case "$":
                return Root(token.at)
            case "(":
                tree = self._expression()
                self._expect(")")
                return tree
            case "[":
                return ListOf(token.at, self._sequence("]"))
            case "{":
                return self._map(token)
        raise refusal(f"unexpected {token.text!r}" if token.text else "unexpected end", token.at)

    def _named(self, token: Token) -> Node:
        if token.text in _CONSTANTS:
            return Literal(token.at, _CONSTANTS[token.text])
        if self._accept("("):
            return self._call(token, ())
        if token.text in self._variables:
            return Name(token.at, token.text)
        raise refusal(f"unknown name {token.text}; paths begin with $., text stands in quotes", token.at)

    def _map(self, token: Token) -> Node:
        entries: list[tuple[Node, Node]] = []
        while not self._accept("}"):
            if entries:
                self._expect(",")
            key = self._expression()
            self._expect(":")
            entries.append((key, self._expression()))
        return MapOf(token.at, tuple(entries))


def _check_pattern(pattern: Node) -> None:
    """A pattern is a constant, so that it is compiled (and refused) once, at registration."""
    if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
        raise refusal("the pattern of matches() is a text constant", pattern.at)
    try:
        compile_pattern(pattern.value)
    except Invalid as error:
        raise refusal(error.detail, pattern.at) from None
