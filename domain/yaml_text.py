"""YAML as people write definitions in it, read as JSON values only.

YAML can say more than JSON, and say it dangerously: aliases that multiply (a kilobyte that becomes gigabytes), tags
that name classes, keys that silently replace each other, dates. All of these are refused or stay text; ``yes`` and
``no`` are booleans as in YAML 1.1.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from domain.canonical import checked
from domain.errors import Malformed, StudioError, TooLarge

TEXT_BYTES_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 64


class _Loader(yaml.SafeLoader):
    """A safe loader without aliases, dates and duplicate keys."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=self._mark())
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEPTH_MAX}", problem_mark=self._mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _mark(self) -> Any:
        return self.peek_event().start_mark  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002 - the base class's
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is not text", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is there twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=True)


# Without its resolver a date stays the text that was written.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str | bytes) -> Any:
    """The JSON value that one YAML document says (JSON is YAML too).

    Raises ``Malformed`` with line and column, ``TooLarge`` beyond 64 KiB: longer documents are sent as JSON, which is
    read a hundred times faster.
    """
    try:
        whole = text.decode() if isinstance(text, bytes) else text
        size = len(whole.encode())
    except UnicodeError:
        raise Malformed("The text is not UTF-8.") from None
    if size > TEXT_BYTES_MAX:
        raise TooLarge(f"A YAML document has at most {TEXT_BYTES_MAX} bytes: send it as JSON.")
    value = _load(whole)
    try:
        checked(value)
    except StudioError as error:
        raise Malformed(f"The text is YAML but not JSON: {error.detail}") from None
    return value


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise Malformed(f"The text is not YAML: {error.problem or error.context}{place}.") from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise Malformed(f"The text is not YAML: {str(error)[:200]}.") from None
