"""JSON values as bytes: read strictly, written in one form only.

Canonical JSON here is RFC 8259 in UTF-8 without spaces, members sorted by code point, control characters
escaped, integers exact, floats in their shortest form that reads back as the same double, ``1`` and ``1.0``
kept apart. RFC 8785 differs in two points that would lose what a person wrote: it turns ``1.0`` into ``1`` and
sorts by UTF-16 units. Two values are *the same* here exactly when their canonical bytes are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson

from domain.errors import Fault, Invalid, Malformed, StudioError, TooLarge

DEPTH_MAX = 64
"""How deep objects and arrays may be nested; a scalar has depth 0, ``[]`` depth 1."""
JSON_BYTES_MAX = 16 * 2**20
"""The largest canonical form of one value, in bytes."""
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**64 - 1
"""Integers beyond 64 bits (signed below, unsigned above) are refused, never rounded."""

_LONG_INTEGER = re.compile(rb"(?<![\d.eE+])-?\d{19,}")


def load(body: bytes | str, *, unique: bool = False) -> Any:
    """Parse one JSON text strictly; of members with the same name the last one counts, unless they must be ``unique``.

    Raises Malformed ``unparsable_body`` with the offset in bytes, Invalid ``number_out_of_range`` for an
    integer beyond 64 bits (which the parser alone would round to a float), TooLarge ``too_deep``.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        if "depth limit" in err.msg:
            raise _too_deep("", DEPTH_MAX) from None
        if "infinity" in err.msg:
            raise _out_of_range("", f"A number has no 64-bit form, at offset {err.pos}.") from None
        # The parser counts characters; who looks for the place in what was sent counts bytes.
        offset = len(err.doc[: err.pos].encode(errors="replace"))
        raise Malformed(f"The body is not JSON: {err.msg} at offset {offset}.") from None
    long = _LONG_INTEGER.search(body.encode() if isinstance(body, str) else body)
    if unique or long:
        try:
            json.loads(body, parse_int=_checked_integer, object_pairs_hook=_distinct if unique else None)
        except RecursionError:
            raise _too_deep("", DEPTH_MAX) from None
    return value


def _distinct(members: list[tuple[str, Any]]) -> None:
    # Only the names matter: the value is the other parser's.
    seen = set()
    for name, _ in members:
        if name in seen:
            raise Malformed(f"An object names the member {name[:100]!r} twice, which leaves open what is meant.")
        seen.add(name)


def _checked_integer(digits: str) -> int:
    # Length first: Python refuses to convert beyond 4300 digits, and slowly below.
    if len(digits) > len(str(INTEGER_MIN)) or not INTEGER_MIN <= int(digits) <= INTEGER_MAX:
        raise _out_of_range("", f"The integer {digits[:24]}… has more than 64 bits.")
    return int(digits)


def canonical(value: Any, *, depth_max: int = DEPTH_MAX, bytes_max: int = JSON_BYTES_MAX) -> bytes:
    """Return the one canonical form of a JSON value (dict, list, str, int, float, bool, None).

    Raises Invalid (``number_out_of_range`` for NaN, infinities and integers beyond 64 bits, ``invalid_value``
    for a lone surrogate, ``wrong_type`` for what is not JSON) with a pointer to the place, TooLarge
    (``too_deep``, ``content_too_large``) beyond the bounds.
    """
    checked(value, depth_max=depth_max, bytes_max=bytes_max)
    try:
        encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Only text is left to be wrong: everything else was checked above.
        raise _lone_surrogate(value) from None
    if len(encoded) > bytes_max:
        raise _too_large(bytes_max)
    return encoded


def canonical_of_valid(value: Any, *, bytes_max: int = JSON_BYTES_MAX) -> bytes:
    """Return what ``canonical`` would of a value made of parts of valid ones: it is not looked through again.

    Raises TooLarge (``content_too_large``) beyond the bound.
    """
    encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(encoded) > bytes_max:
        raise _too_large(bytes_max)
    return encoded


def same(left: Any, right: Any) -> bool:
    """Tell whether two valid JSON values have the same canonical bytes (so ``1``, ``1.0`` and true all differ)."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, (dict, list)):
        if len(left) != len(right):
            return False
        return orjson.dumps(left, option=orjson.OPT_SORT_KEYS) == orjson.dumps(right, option=orjson.OPT_SORT_KEYS)
    if isinstance(left, float):
        return orjson.dumps(left) == orjson.dumps(right)  # -0.0 is not 0.0
    return bool(left == right)


def checked(value: Any, *, depth_max: int = DEPTH_MAX, bytes_max: int = JSON_BYTES_MAX) -> None:
    """Raise, as ``canonical`` does, if the value is not JSON within the bounds; text is checked when encoded.

    The size is estimated from below, so that an expanded value is refused before it fills the memory.
    """
    size = 0
    level: list[Any] = [value]
    depth = 0
    while level:
        if (
            depth == depth_max
            and (deep := next((item for item in level if type(item) in (dict, list)), None)) is not None
        ):
            raise _too_deep(_pointer_to(value, deep), depth_max)
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:  # first and here, because nearly everything is text
                size += len(item) + 2
            elif kind is dict:
                inner += item.values()
                size += 2 + _names_size(item, value)
            elif kind is list:
                inner += item
                size += 2 + len(item)
            else:
                size += 1
                if kind is not bool and item is not None:
                    _check_number(item, kind, value)
            if size > bytes_max:
                raise _too_large(bytes_max)
        depth += 1
        level = inner


def _names_size(item: dict[Any, Any], root: Any) -> int:
    size = 4 * len(item)
    for name in item:
        if type(name) is not str:
            raise _wrong_type(root, item, "Names of members are strings.")
        size += len(name)
    return size


def _check_number(number: Any, kind: type, root: Any) -> None:
    if kind is int:
        if not INTEGER_MIN <= number <= INTEGER_MAX:
            raise _out_of_range(_pointer_to(root, number), "The integer has more than 64 bits.")
    elif kind is not float:
        raise _wrong_type(root, number, f"{kind.__name__} is not a JSON value.")
    elif not math.isfinite(number):
        raise _out_of_range(_pointer_to(root, number), "JSON has no NaN and no infinity.")


def _walk(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    # Iterative, because it also describes values that are nested too deeply. Only errors pay for it.
    pending = [(pointer, value)]
    while pending:
        here, item = pending.pop()
        yield here, item
        if isinstance(item, dict):
            pending.extend((f"{here}/{escaped(str(name))}", inner) for name, inner in item.items())
        elif isinstance(item, list):
            pending.extend((f"{here}/{index}", inner) for index, inner in enumerate(item))


def escaped(token: str) -> str:
    """Return one reference token of a JSON Pointer as it is written (RFC 6901, section 3)."""
    return token.replace("~", "~0").replace("/", "~1")


def _pointer_to(root: Any, wanted: Any) -> str:
    return next((pointer for pointer, item in _walk(root) if item is wanted), "")


def _lone_surrogate(root: Any) -> StudioError:
    for pointer, item in _walk(root):
        texts = [item, *item] if isinstance(item, dict) else [item]
        for text in texts:
            if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
                detail = "The text holds half of a surrogate pair, which is not Unicode."
                shown = pointer.encode("utf-8", "replace").decode()
                return Invalid(detail, faults=[Fault(shown, "invalid_value", detail)])
    return Invalid("The value is not JSON.", faults=[Fault("", "wrong_type", "The value is not JSON.")])


def _wrong_type(root: Any, item: Any, detail: str) -> Invalid:
    return Invalid(detail, faults=[Fault(_pointer_to(root, item), "wrong_type", detail)])


def _out_of_range(pointer: str, detail: str) -> Invalid:
    return Invalid(detail, code="number_out_of_range", faults=[Fault(pointer, "number_out_of_range", detail)])


def _too_deep(pointer: str, depth_max: int) -> TooLarge:
    detail = f"Objects and arrays may be nested {depth_max} deep."
    return TooLarge(detail, code="too_deep", faults=[Fault(pointer, "too_deep", detail)])


def _too_large(bytes_max: int) -> TooLarge:
    detail = f"The JSON may have {bytes_max} bytes."
    return TooLarge(detail, code="content_too_large", members={"limit_bytes": bytes_max})
