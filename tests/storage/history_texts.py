"""Random documents and random changes of them, in every form that a client can send."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jsonpatch
import jsonpointer
import orjson

from tests.storage.history_oracle import merged, patched

WORDS = ("storm", "sea", "Schiff", "the", "and", "a", "night", "harbour", "größer", "lamp", "𝄞", "under", "wind")
VALUES: tuple[Any, ...] = (
    None, 0, 1, 1.0, -0.0, True, "", "a\u0000b", "Ünïcode", [], {}, [1, [2, {"a": None}]], {"~a/b": {"": 1}}, 1e300,
    2**63, "x" * 90, ["p", "q", "r"], {"b": 1, "a": [True]},
)  # fmt: skip
NAMES = ("a", "b", "~c/d", "", "list", "text")
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"

Root = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One request that changes a document, and what it makes of one."""

    method: str
    suffix: str
    media: str
    body: bytes
    apply: Callable[[Root], Root]

    def of(self, root: Root | None) -> Root | None:
        """What it makes of a document, None if it does not fit."""
        try:
            return None if root is None else self.apply(root)
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException):
            return None

    @property
    def needs_match(self) -> bool:
        """Whether the request has to say which version it is about."""
        return self.media != "application/json" or self.method == "PUT"


def paragraph(chance: random.Random) -> str:
    """Some words."""
    return " ".join(chance.choices(WORDS, k=chance.randint(2, 14)))


def new_document(chance: random.Random) -> Root:
    """The root of a new document: a text or data."""
    root: Root = {"title": chance.choice(["", "A title"]), "tags": chance.sample(["x", "y", "z"], chance.randint(0, 2))}
    if chance.random() < 0.5:
        return {**root, "content": "\n\n".join(paragraph(chance) for _ in range(chance.randint(0, 5)))}
    return {**root, "data": {name: chance.choice(VALUES) for name in chance.sample(NAMES, chance.randint(0, 4))}}


def another_text(chance: random.Random, text: str) -> str:
    """A text with a word put in, taken out or doubled, or a paragraph moved; seldom another text."""
    parts = text.split("\n\n")
    at = chance.randrange(len(parts))
    roll = chance.random()
    if roll < 0.5:
        words = parts[at].split(" ")
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        parts[at] = " ".join(words)
    elif roll < 0.7:
        parts.insert(at, paragraph(chance))
    elif roll < 0.8:
        parts.append(parts.pop(at))
    elif roll < 0.95:
        del parts[at]
    else:
        return paragraph(chance)
    return "\n\n".join(parts)


def any_change(chance: random.Random, known: Root, version: int) -> Change:
    """A change that is valid for the document ``known``, in one of the four forms."""
    kind = chance.choice(["patch", "merge", "envelope", "put"])
    if kind == "patch":
        return _json_patch(chance, known)
    if kind == "put":
        return _put(chance, known)
    changes = _members(chance, known)
    if kind == "merge":
        return Change("PATCH", "", MERGE_PATCH, orjson.dumps(changes), lambda root: merged(root, changes))
    delta: Root = {"operation": "update", "patch": changes}
    if chance.random() < 0.5:
        delta["from_version"] = version
    return Change("PATCH", "", "application/json", orjson.dumps({"delta": delta}), lambda root: merged(root, changes))


def _put(chance: random.Random, known: Root) -> Change:
    if "content" in known:
        text = another_text(chance, known["content"])
        return Change("PUT", "/content", "text/plain", text.encode(), lambda root: {**root, "content": text})
    data = {name: chance.choice(VALUES) for name in chance.sample(NAMES, 3)}
    return Change("PUT", "/content", "application/json", orjson.dumps(data), lambda root: {**root, "data": data})


def _members(chance: random.Random, known: Root) -> Root:
    changes: Root = {}
    if chance.random() < 0.3:
        changes["title"] = chance.choice(["", "A title", "Anderer Titel"])
    if chance.random() < 0.3:
        changes["metadata"] = {chance.choice("mno"): chance.choice([None, 1, "v", [1]])}
    if "content" in known:
        changes["content"] = another_text(chance, known["content"])
    else:
        changes["data"] = {name: chance.choice(VALUES) for name in chance.sample(NAMES, chance.randint(1, 3))}
    return changes


def _json_patch(chance: random.Random, known: Root) -> Change:
    operations: list[Root] = []
    root = known
    for _ in range(chance.randint(1, 4)):
        operation = _operation(chance, root)
        root = patched(root, [operation])
        operations.append(operation)
    return Change("PATCH", "", JSON_PATCH, orjson.dumps(operations), lambda root: patched(root, operations))


def _operation(chance: random.Random, root: Root) -> Root:
    if "content" in root:
        choices: list[Root] = [
            {"op": "replace", "path": "/content", "value": another_text(chance, root["content"])},
            {"op": "test", "path": "/content", "value": root["content"]},
            {"op": "copy", "from": "/content", "path": "/metadata/copy"},
        ]
    else:
        choices = _of_data(chance, root["data"])
    choices.append({"op": "add", "path": f"/metadata/{chance.choice('mno')}", "value": chance.choice(VALUES)})
    choices.append({"op": "replace", "path": "/title", "value": chance.choice(["", "B", "C"])})
    return chance.choice(choices)


def _of_data(chance: random.Random, data: Mapping[str, Any]) -> list[Root]:
    name = chance.choice(NAMES)
    choices: list[Root] = [{"op": "add", "path": _at(name), "value": chance.choice(VALUES)}]
    if data:
        held, other = chance.choice(sorted(data)), chance.choice(NAMES)
        choices += [
            {"op": "replace", "path": _at(held), "value": chance.choice(VALUES)},
            {"op": "remove", "path": _at(held)},
            {"op": "move", "from": _at(held), "path": _at(other)},
            {"op": "copy", "from": _at(held), "path": _at(other)},
        ]
        value = data[held]
        if isinstance(value, list):
            at = chance.choice(["-", chance.randint(0, len(value))])
            choices.append({"op": "add", "path": f"{_at(held)}/{at}", "value": chance.choice(VALUES)})
            if value:
                choices.append({"op": "remove", "path": f"{_at(held)}/{chance.randrange(len(value))}"})
    return choices


def _at(name: str) -> str:
    return f"/data/{name.replace('~', '~0').replace('/', '~1')}"


def insertable(chance: random.Random) -> Root:
    """A document into which tokens can be put in many places."""
    if chance.random() < 0.6:
        return {"content": "\n\n".join(paragraph(chance) for _ in range(chance.randint(1, 5)))}
    return {"data": {"line": "a line", "prose": f"{paragraph(chance)}\n\n{paragraph(chance)}", "items": [], "deep": {}}}


def token_put(chance: random.Random, known: Root, token: str) -> Root:
    """The members that change when a token is put somewhere; whatever was there is still there."""
    if chance.random() < 0.1:
        return {"tags": [*known["tags"], token]}
    if "content" in known:
        return {"content": _with_token(chance, known["content"], token)}
    return {"data": _put_into(chance, known["data"], token)}


def _put_into(chance: random.Random, data: Root, token: str) -> Root:
    kind = chance.choice(["field", "line", "prose", "items", "deep"])
    if kind == "line":
        return {"line": f"{data['line']} {token}"}
    if kind == "prose":
        return {"prose": _with_token(chance, data["prose"], token)}
    if kind == "items":
        items = list(data["items"])
        items.insert(chance.randint(0, len(items)), token)
        return {"items": items}
    if kind == "deep":
        name = chance.choice("uvw")
        return {"deep": {name: [*data["deep"].get(name, []), token]}}
    return {token: token}


def _with_token(chance: random.Random, text: str, token: str) -> str:
    parts = text.split("\n\n")
    at = chance.randrange(len(parts))
    if chance.random() < 0.25:
        parts.insert(at, f"{paragraph(chance)} {token}")
    else:
        words = parts[at].split(" ")
        words.insert(chance.randint(0, len(words)), token)
        parts[at] = " ".join(words)
    return "\n\n".join(parts)
