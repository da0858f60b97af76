"""What a machine has offered and nobody has decided about: it stays in dispute through later runs.

The machine head advances where the human side won (else one conflict would return at each run), so a later run sees no
conflict there any more. Yet the machine's words are still only offered. The *disputed head* is the head with the
undecided places put back to what they were before the dispute: merged with it, they come out as conflicts for as long
as the machine and the person differ, and what is offered is what the machine says there now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from domain.canonical import same
from domain.documents import Document
from domain.paragraphs import DEFAULT_SEPARATOR


def disputed_head(head: Document, conflicts: Sequence[Mapping[str, Any]]) -> Document:
    """Return ``head`` with the places of ``conflicts`` (as stored in a delta) as they were before.

    A place that is not found again is left as it is: it is not offered once more, and nothing is lost by that.
    """
    root: Any = head.to_json()
    for conflict in conflicts:
        root = _put_back(root, [_name(part) for part in str(conflict["pointer"]).split("/")[1:]], conflict)
    return replace(head, body=root[head.kind], title=root["title"], tags=tuple(root["tags"]), metadata=root["metadata"])


def _name(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _put_back(value: Any, path: Sequence[str], conflict: Mapping[str, Any]) -> Any:
    """Return the value with the place at ``path`` put back; values are shared, never changed."""
    if not path:
        return _before(value, conflict)
    name, deeper = path[0], path[1:]
    if isinstance(value, dict):
        return _member(value, name, deeper, conflict)
    if isinstance(value, list) and name.isdigit() and int(name) < len(value):
        at = int(name)
        return [*value[:at], _put_back(value[at], deeper, conflict), *value[at + 1 :]]
    return value


def _member(value: dict[str, Any], name: str, deeper: Sequence[str], conflict: Mapping[str, Any]) -> Any:
    if deeper or not _whole(conflict):
        return {**value, name: _put_back(value[name], deeper, conflict)} if name in value else value
    known = {key: part for key, part in value.items() if key != name}
    if name in value and "theirs" not in conflict:
        return value
    return {**known, name: conflict["base"]} if "base" in conflict else known


def _whole(conflict: Mapping[str, Any]) -> bool:
    """Whether a conflict is about the value at its pointer, not about a place in its text or an item of its array."""
    return not conflict.keys() & {"paragraph", "start", "item", "about"}


def _before(value: Any, conflict: Mapping[str, Any]) -> Any:
    base, theirs = conflict.get("base"), conflict.get("theirs")
    if "item" in conflict:
        return _item_before(value, conflict)
    if "about" in conflict or not isinstance(value, str) or not isinstance(theirs, str):
        return value
    if value.count(theirs) != 1:
        return value
    if base is not None:
        return value.replace(theirs, str(base))
    return value.replace(DEFAULT_SEPARATOR + theirs, "") if DEFAULT_SEPARATOR + theirs in value else value


def _item_before(value: Any, conflict: Mapping[str, Any]) -> Any:
    if not isinstance(value, list) or "theirs" not in conflict:
        return value
    found = [index for index, item in enumerate(value) if same(item, conflict["theirs"])]
    if len(found) != 1:
        return value
    at = found[0]
    return [*value[:at], *([conflict["base"]] if "base" in conflict else []), *value[at + 1 :]]
