"""RFC 6902 operations on JSON values, without copying the value per patch.

``Editing`` shares what does not change with the value it started from and copies each object or array once,
when it first writes into it. Applying a thousand patches to a document therefore costs the changes, not a
thousand documents (the library copies: 10,000 patches 0.9 s, here about 10 ms). The value given is never
changed, so a patch that fails half way has done nothing.

``splice`` is ours and is met in stored patches only: ``{"op": "splice", "path", "at", "remove", "insert"}``
replaces the text ``remove`` at code point ``at`` by ``insert``. It names what it removes, so it fails instead
of damaging a text that is not the one it was made for, and its inverse needs no look at the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from domain.canonical import DEPTH_MAX, escaped
from domain.errors import Conflict, Fault, Invalid, TooLarge

Operation = Mapping[str, Any]

COPIED_VALUES_MAX = 1_000_000
"""How many JSON values the copy operations of one patch may make; it stops a document that doubles itself."""
COPIED_DEPTH_MAX = DEPTH_MAX + 3
"""How deep a copied value may be nested: no document is deeper, but one that copies into itself grows by each copy."""
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_BAD_ESCAPE = re.compile(r"~(?![01])")


def parse_pointer(text: str) -> list[str]:
    """Return the reference tokens of a JSON Pointer (RFC 6901); raises ValueError with the reason."""
    if text and not text.startswith("/"):
        raise ValueError("A JSON Pointer is empty or begins with /.")
    if "~" not in text:
        return text.split("/")[1:]
    if _BAD_ESCAPE.search(text):
        raise ValueError("In a JSON Pointer ~ is written ~0 and / is written ~1.")
    return [token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:]]


def apply_operations(value: Any, operations: Sequence[Operation], *, pointer: str = "") -> Any:
    """Return the value after all operations, which have been checked before; the value given stays as it is.

    Raises Invalid ``path_not_found``, Conflict ``test_failed``, TooLarge ``content_too_large``; faults point below
    ``pointer`` at the member of the operation, as in ``/0/path``.
    """
    editing = Editing(value)
    for index, operation in enumerate(operations):
        editing.apply(operation, f"{pointer}/{index}")
    return editing.value


class Editing:
    """A JSON value under change: ``value`` is its present state, what it started from stays untouched."""

    def __init__(self, value: Any) -> None:
        self.value = value
        # Containers made here, which nobody else holds. Keeping them alive keeps their id() theirs.
        self._own: dict[int, Any] = {}
        self._copied = 0

    def apply(self, operation: Operation, pointer: str) -> None:
        """Apply one operation; ``pointer`` names it in errors. See ``apply_operations``."""
        kind = operation["op"]
        if kind == "add":
            self._add(operation["path"], operation["value"], pointer)
        elif kind == "remove":
            self._remove(operation["path"], f"{pointer}/path")
        elif kind == "replace":
            self._replace(operation["path"], operation["value"], pointer)
        elif kind == "move":
            self._move(operation, pointer)
        elif kind == "copy":
            self._add(operation["path"], self._copy(self._get(operation["from"], f"{pointer}/from")), pointer)
        elif kind == "test":
            self._test(operation, pointer)
        else:
            self._splice(operation, pointer)

    def _move(self, operation: Operation, pointer: str) -> None:
        source = operation["from"]
        if source == operation["path"]:
            self._get(source, f"{pointer}/from")
        else:
            self._add(operation["path"], self._remove(source, f"{pointer}/from"), pointer)

    def _test(self, operation: Operation, pointer: str) -> None:
        if not equal(self._get(operation["path"], f"{pointer}/path"), operation["value"]):
            detail = f"The value at {operation['path'] or 'the root'} is another one."
            fault = Fault(f"{pointer}/value", "test_failed", detail)
            raise Conflict(detail, code="test_failed", faults=[fault])

    def _splice(self, operation: Operation, pointer: str) -> None:
        text = self._get(operation["path"], f"{pointer}/path")
        at, removed = operation["at"], operation["remove"]
        if not isinstance(text, str) or not text.startswith(removed, at):
            raise _not_found(f"{pointer}/path", "The text is not the one that this splice was made for.")
        self._replace(operation["path"], text[:at] + operation["insert"] + text[at + len(removed) :], pointer)

    def _add(self, path: str, value: Any, pointer: str) -> None:
        tokens = parse_pointer(path)
        if not tokens:
            self.value = value
            return
        parent = self._parent(tokens, f"{pointer}/path")
        if isinstance(parent, dict):
            parent[tokens[-1]] = value
        else:
            end = len(parent)
            at = end if tokens[-1] == "-" else _index(tokens[-1], end, f"{pointer}/path")
            parent.insert(at, value)

    def _remove(self, path: str, pointer: str) -> Any:
        tokens = parse_pointer(path)
        if not tokens:
            raise _not_found(pointer, "The whole document cannot be removed.")
        parent = self._parent(tokens, pointer)
        return parent.pop(_key(parent, tokens[-1], pointer))

    def _replace(self, path: str, value: Any, pointer: str) -> None:
        tokens = parse_pointer(path)
        if not tokens:
            self.value = value
            return
        parent = self._parent(tokens, f"{pointer}/path")
        parent[_key(parent, tokens[-1], f"{pointer}/path")] = value

    def _get(self, path: str, pointer: str) -> Any:
        here = self.value
        for token in parse_pointer(path):
            here = here[_key(here, token, pointer)]
        return here

    def _parent(self, tokens: Sequence[str], pointer: str) -> Any:
        """Return the container that holds the last token, ready to be written into."""
        here = self.value = self._owned(self.value)
        for token in tokens[:-1]:
            key = _key(here, token, pointer)
            inner = self._owned(here[key])
            here[key] = inner
            here = inner
        if not isinstance(here, (dict, list)):
            raise _not_found(pointer, f"{_shown(tokens[-1])}: its parent is not an object or array.")
        return here

    def _owned(self, value: Any) -> Any:
        if not isinstance(value, (dict, list)) or id(value) in self._own:
            return value
        mine = value.copy()
        self._own[id(mine)] = mine
        return mine

    def _copy(self, value: Any, depth: int = 0) -> Any:
        """Copy deeply, so that writing into one of the two places does not change the other."""
        if depth > COPIED_DEPTH_MAX:
            raise TooLarge(f"A copy operation may copy values nested {COPIED_DEPTH_MAX} deep.", code="too_deep")
        self._copied += 1
        if self._copied > COPIED_VALUES_MAX:
            detail = f"The copy operations of a patch may make {COPIED_VALUES_MAX} values."
            raise TooLarge(detail, code="content_too_large")
        if isinstance(value, dict):
            return {name: self._copy(inner, depth + 1) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._copy(inner, depth + 1) for inner in value]
        return value


def equal(left: Any, right: Any) -> bool:
    """Compare as RFC 6902 section 4.6 does: numbers by value (``1`` equals ``1.0``), true is not a number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def _key(container: Any, token: str, pointer: str) -> Any:
    if isinstance(container, dict):
        if token in container:
            return token
        raise _not_found(pointer, f"There is no member {_shown(token)}.")
    if isinstance(container, list):
        return _index(token, len(container) - 1, pointer)
    raise _not_found(pointer, f"{_shown(token)}: its parent is not an object or array.")


def _index(token: str, largest: int, pointer: str) -> int:
    if not _INDEX.fullmatch(token):
        raise _not_found(pointer, f"{_shown(token)} is not an index of an array.")
    index = int(token)
    if index > largest:
        raise _not_found(pointer, f"Index {index} is beyond the end of the array.")
    return index


def _shown(token: str) -> str:
    return f"'{escaped(token)[:100]}'"


def _not_found(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, code="path_not_found", faults=[Fault(pointer, "path_not_found", detail)])
