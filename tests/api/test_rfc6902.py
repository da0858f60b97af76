"""JSON Patch over HTTP: every operation and error of RFC 6902, its whole appendix A, on documents at ``/data``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
import pytest

from domain.canonical import canonical
from tests.api.requests import JSON_PATCH, make, problem
from tests.conftest import BASE, Person

SPOKEN_FOR = ("path_not_found", "test_failed", "invalid_operation", "immutable_field")
"""Codes of single faults that are the problem's own code as well."""
SAME: Any = object()
"""The document stays as it is, and so does its version."""


@dataclass(frozen=True)
class Good:
    """A patch that applies."""

    name: str
    document: Any
    operations: list[dict[str, Any]]
    after: Any = SAME


@dataclass(frozen=True)
class Bad:
    """A patch that is refused: status, code, and the place in the patch."""

    name: str
    document: Any
    operations: Any
    status: int
    code: str
    pointer: str | None = None
    faults: int = field(default=1)


def add(path: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value, **more}


def remove(path: str) -> dict[str, Any]:
    return {"op": "remove", "path": path}


def replace(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


def move(source: str, path: str) -> dict[str, Any]:
    return {"op": "move", "from": source, "path": path}


def copy(source: str, path: str) -> dict[str, Any]:
    return {"op": "copy", "from": source, "path": path}


def test(path: str, value: Any) -> dict[str, Any]:
    return {"op": "test", "path": path, "value": value}


test.__test__ = False  # type: ignore[attr-defined]

SLASHES = {"/": 9, "~1": 10}
WALDO = {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}
EATING = ["all", "grass", "cows", "eat"]
NUMBERS = {"int": 1, "float": 1.0, "big": 2**64 - 1, "low": -(2**63), "small": 1e-7, "zero": 0, "minus": -0.0}

APPENDIX_A = [
    Good("A.1", {"foo": "bar"}, [add("/baz", "qux")], {"baz": "qux", "foo": "bar"}),
    Good("A.2", {"foo": ["bar", "baz"]}, [add("/foo/1", "qux")], {"foo": ["bar", "qux", "baz"]}),
    Good("A.3", {"baz": "qux", "foo": "bar"}, [remove("/baz")], {"foo": "bar"}),
    Good("A.4", {"foo": ["bar", "qux", "baz"]}, [remove("/foo/1")], {"foo": ["bar", "baz"]}),
    Good("A.5", {"baz": "qux", "foo": "bar"}, [replace("/baz", "boo")], {"baz": "boo", "foo": "bar"}),
    Good(
        "A.6", WALDO, [move("/foo/waldo", "/qux/thud")],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    Good("A.7", {"foo": EATING}, [move("/foo/1", "/foo/3")], {"foo": ["all", "cows", "eat", "grass"]}),
    Good("A.8", {"baz": "qux", "foo": ["a", 2, "c"]}, [test("/baz", "qux"), test("/foo/1", 2)]),
    Good("A.10", {"foo": "bar"}, [add("/child", {"grandchild": {}})], {"foo": "bar", "child": {"grandchild": {}}}),
    Good("A.11", {"foo": "bar"}, [add("/baz", "qux", xyz=123)], {"foo": "bar", "baz": "qux"}),
    Good("A.14", SLASHES, [test("/~01", 10)]),
    Good("A.16", {"foo": ["bar"]}, [add("/foo/-", ["abc", "def"])], {"foo": ["bar", ["abc", "def"]]}),
]  # fmt: skip
REFUSED_BY_APPENDIX_A = [
    Bad("A.9", {"baz": "qux"}, [test("/baz", "bar")], 409, "test_failed", "/0/value"),
    Bad("A.12", {"foo": "bar"}, [add("/baz/bat", "qux")], 422, "path_not_found", "/0/path"),
    Bad("A.15", SLASHES, [test("/~01", "10")], 409, "test_failed", "/0/value"),
]
ADDING = [
    Good("an existing member is replaced", {"a": 1}, [add("/a", [2])], {"a": [2]}),
    Good("null is a value", {}, [add("/a", None)], {"a": None}),
    Good("before the first", {"a": [1]}, [add("/a/0", 0)], {"a": [0, 1]}),
    Good("at the end by its index", {"a": [1]}, [add("/a/1", 2)], {"a": [1, 2]}),
    Good("into an empty array", {"a": []}, [add("/a/0", 1), add("/a/-", 2)], {"a": [1, 2]}),
    Good("an array into an array is one element", {"a": [1]}, [add("/a/0", [0])], {"a": [[0], 1]}),
    Good("digits name a member of an object", {"a": {}}, [add("/a/0", 1), add("/a/-", 2)], {"a": {"0": 1, "-": 2}}),
    Good("a leading zero names a member", {"a": {}}, [add("/a/01", 1)], {"a": {"01": 1}}),
    Good("the empty name", {"": 1}, [add("/", 2)], {"": 2}),
    Good("names below the empty name", {"": {}}, [add("//", 3)], {"": {"": 3}}),
    Good("the whole value", {"a": 1}, [add("", [1])], [1]),
    Good("what was just made", {}, [add("/a", {}), add("/a/b", []), add("/a/b/-", 1)], {"a": {"b": [1]}}),
    Good("from means nothing here", {}, [add("/a", 1, **{"from": "/nowhere"})], {"a": 1}),
]  # fmt: skip
ESCAPING = [
    Good("a slash", {"a/b": 1}, [replace("/a~1b", 2)], {"a/b": 2}),
    Good("a tilde", {"m~n": 1}, [replace("/m~0n", 2)], {"m~n": 2}),
    Good("~01 is ~1, not a slash", SLASHES, [remove("/~01")], {"/": 9}),
    Good("~1 is a slash", SLASHES, [remove("/~1")], {"~1": 10}),
    Good("~00 is ~0", {"~0": 1}, [remove("/~00")], {}),
    Good("nothing else is special", {"a%2Fb": 1, "c\\d": 2, 'e"f': 3, " ": 4, "#": 5},
         [remove("/a%2Fb"), remove("/c\\d"), remove('/e"f'), remove("/ ")], {"#": 5}),
    Good("beyond ASCII", {"é": 1, "😀": 2}, [move("/é", "/e\u0301"), remove("/😀")], {"e\u0301": 1}),
    Good("names of JavaScript", {}, [add("/__proto__", 1), add("/constructor", 2), add("/length", 3)],
         {"__proto__": 1, "constructor": 2, "length": 3}),
]  # fmt: skip
MOVING = [
    Good("onto itself", {"a": 1}, [move("/a", "/a")]),
    Good("onto another", {"a": 1, "b": 2}, [move("/a", "/b")], {"b": 1}),
    Good("the index counts after the removal", {"a": [1, 2, 3]}, [move("/a/0", "/a/2")], {"a": [2, 3, 1]}),
    Good("to the end", {"a": [1, 2, 3]}, [move("/a/0", "/a/-")], {"a": [2, 3, 1]}),
    Good("out of its parent", {"a": {"b": 1}}, [move("/a/b", "/a")], {"a": 1}),
    Good("to a name that begins alike", {"a": 1}, [move("/a", "/ab")], {"ab": 1}),
    Good("a copy is another value", {"a": {"b": []}}, [copy("/a", "/c"), add("/c/b/-", 1)],
         {"a": {"b": []}, "c": {"b": [1]}}),
    Good("a copy into what it copies", {"a": {"b": 1}}, [copy("/a", "/a/c")], {"a": {"b": 1, "c": {"b": 1}}}),
    Good("a copy of the whole into itself", {"a": 1}, [copy("", "/b")], {"a": 1, "b": {"a": 1}}),
    Good("a copy onto itself", {"a": [1]}, [copy("/a", "/a")]),
    Good("a copy before itself", {"a": [1, 2]}, [copy("/a/1", "/a/0")], {"a": [2, 1, 2]}),
]  # fmt: skip
TESTING = [
    Good("numbers by their value", NUMBERS, [test("/int", 1.0), test("/float", 1), test("/zero", -0.0)]),
    Good("whole numbers exactly", NUMBERS, [test("/big", 2**64 - 1), test("/low", -(2**63)), test("/small", 1e-7)]),
    Good("null is there", {"a": None}, [test("/a", None)]),
    Good("members in any order", {"a": {"x": 1, "y": [2]}}, [test("/a", {"y": [2], "x": 1})]),
    Good("the whole value", {"a": [True, False]}, [test("", {"a": [True, False]})]),
    Good("a scalar as the whole", "a text", [test("", "a text")]),
    Good("what an operation before made", {"a": 1}, [replace("/a", 2), test("/a", 2), replace("/a", 1)]),
    Good("characters as they are", {"a": "e\u0301\u0000\u2028"}, [test("/a", "e\u0301\u0000\u2028")]),
]  # fmt: skip
FAILING = [
    ("a text is no number", {"a": 1}, test("/a", "1")),
    ("true is not 1", {"a": 1}, test("/a", True)),
    ("0 is not false", {"a": False}, test("/a", 0)),
    ("null is not false", {"a": None}, test("/a", False)),
    ("null is not an empty object", {"a": None}, test("/a", {})),
    ("an array is no object", {"a": []}, test("/a", {})),
    ("neighbours beyond 2^53 differ", {"a": 2**53 + 1}, test("/a", 2**53)),
    ("nor is a double what it rounds", {"a": 2**53 + 1}, test("/a", float(2**53))),
    ("a member more", {"a": {"x": 1, "y": 2}}, test("/a", {"x": 1})),
    ("a member less", {"a": {"x": 1}}, test("/a", {"x": 1, "y": None})),
    ("another order", {"a": [1, 2]}, test("/a", [2, 1])),
    ("a prefix", {"a": [1, 2]}, test("/a", [1])),
    ("deep inside", {"a": [{"b": [{"c": "d"}]}]}, test("/a", [{"b": [{"c": "D"}]}])),
    ("characters are not normalised", {"a": "é"}, test("/a", "e\u0301")),
]
MISSING = [
    ("a member to remove", {"a": 1}, remove("/b"), "/0/path"),
    ("a member to replace", {"a": 1}, replace("/b", 1), "/0/path"),
    ("a member to test", {"a": 1}, test("/b", None), "/0/path"),
    ("a member to move", {"a": 1}, move("/b", "/c"), "/0/from"),
    ("a member to copy", {"a": 1}, copy("/b", "/c"), "/0/from"),
    ("the parent of an added one", {"a": {}}, add("/a/b/c", 1), "/0/path"),
    ("the parent of a moved one", {"a": 1}, move("/a", "/b/c"), "/0/path"),
    ("below a text", {"a": "text"}, add("/a/0", 1), "/0/path"),
    ("below a number", {"a": 1}, add("/a/b", 1), "/0/path"),
    ("below null", {"a": None}, add("/a/b", 1), "/0/path"),
    ("into a text", {"a": "text"}, test("/a/0", "t"), "/0/path"),
    ("one beyond the end", {"a": [1]}, add("/a/2", 1), "/0/path"),
    ("the end itself", {"a": [1]}, remove("/a/1"), "/0/path"),
    ("of an empty array", {"a": []}, replace("/a/0", 1), "/0/path"),
    ("- names nothing to remove", {"a": [1]}, remove("/a/-"), "/0/path"),
    ("- names nothing to replace", {"a": [1]}, replace("/a/-", 1), "/0/path"),
    ("- names nothing to test", {"a": [1]}, test("/a/-", 1), "/0/path"),
    ("- names nothing to move", {"a": [1]}, move("/a/-", "/b"), "/0/from"),
    ("- names nothing to copy", {"a": [1]}, copy("/a/-", "/b"), "/0/from"),
    ("- is no way further", {"a": [[]]}, add("/a/-/0", 1), "/0/path"),
    *(
        (f"the index {index!r}", {"a": [1, 2, 3]}, operation, "/0/path")
        for index in ("01", "00", "-0", "-1", "+1", "1.0", "1e0", " 1", "1 ", "0x1", "", "a", "\u0661", "1" * 400)
        for operation in (add(f"/a/{index}", 0), remove(f"/a/{index}"))
    ),
]
MALFORMED = [
    ("no array", {"op": "remove", "path": "/a"}, 422, "wrong_type", ""),
    ("a text", "[]", 422, "wrong_type", ""),
    ("null", None, 422, "wrong_type", ""),
    ("an operation that is no object", [1], 422, "wrong_type", "/0"),
    ("a null operation", [None], 422, "wrong_type", "/0"),
    ("an array as operation", [["remove", "/a"]], 422, "wrong_type", "/0"),
    ("no op", [{"path": "/a", "value": 1}], 422, "missing_field", "/0/op"),
    ("an unknown op", [{"op": "spam", "path": "/a"}], 422, "invalid_operation", "/0/op"),
    ("an op in capitals", [{"op": "Add", "path": "/a", "value": 1}], 422, "invalid_operation", "/0/op"),
    ("op is null", [{"op": None, "path": "/a"}], 422, "invalid_operation", "/0/op"),
    ("op is an object", [{"op": {}, "path": "/a"}], 422, "invalid_operation", "/0/op"),
    ("our own splice", [{"op": "splice", "path": "/a", "at": 0, "remove": ""}], 422, "invalid_operation", "/0/op"),
    ("no path", [{"op": "remove"}], 422, "missing_field", "/0/path"),
    ("path is null", [{"op": "remove", "path": None}], 422, "wrong_type", "/0/path"),
    ("path is an array", [{"op": "remove", "path": ["a"]}], 422, "wrong_type", "/0/path"),
    ("a path without slash", [{"op": "remove", "path": "a"}], 422, "invalid_value", "/0/path"),
    ("a fragment", [{"op": "remove", "path": "#/a"}], 422, "invalid_value", "/0/path"),
    ("a bare tilde", [{"op": "remove", "path": "/a~"}], 422, "invalid_value", "/0/path"),
    ("a tilde before 2", [{"op": "remove", "path": "/~2"}], 422, "invalid_value", "/0/path"),
    ("no value to add", [{"op": "add", "path": "/a"}], 422, "missing_field", "/0/value"),
    ("no value to replace", [{"op": "replace", "path": "/a"}], 422, "missing_field", "/0/value"),
    ("no value to test", [{"op": "test", "path": "/a"}], 422, "missing_field", "/0/value"),
    ("no from to move", [{"op": "move", "path": "/a"}], 422, "missing_field", "/0/from"),
    ("no from to copy", [{"op": "copy", "path": "/a"}], 422, "missing_field", "/0/from"),
    ("a from that is no pointer", [{"op": "copy", "path": "/data/b", "from": "x"}], 422, "invalid_value", "/0/from"),
    ("into its own child", [move("/data/a", "/data/a/b")], 422, "invalid_value", "/0/path"),
    ("into its own grandchild", [move("/data/a", "/data/a/-/b")], 422, "invalid_value", "/0/path"),
    ("the whole into itself", [move("", "/data/a")], 422, "invalid_value", "/0/path"),
]  # fmt: skip
WHOLE = {"content_type": "application/json", "data": {"b": 2}, "title": "T", "tags": ["x"], "metadata": {"m": 1}}
ROOT = [
    ("the document cannot be removed", [remove("")], "path_not_found", "/0/path"),
    ("nor become an array", [replace("", [])], "wrong_type", None),
    ("nor null", [add("", None)], "wrong_type", None),
    ("nor lose its body", [remove("/data")], "missing_field", "/0/path"),
    ("nor have two", [add("/content", "x")], "invalid_value", "/0/path"),
    ("nor an unknown member", [add("/colour", "x")], "unknown_field", "/0/path"),
    ("nor change its type", [replace("/content_type", "text/plain")], "immutable_field", "/0/path"),
    ("nor lose its type", [remove("/content_type")], "immutable_field", "/0/path"),
    ("nor lose it in a replacement", [replace("", {"data": 1})], "immutable_field", "/0/path"),
    ("nor change its schema", [add("/schema_id", "text-v1")], "immutable_field", "/0/path"),
    ("nor have a wrong title", [replace("/title", 7)], "wrong_type", "/0/path"),
    ("nor tags of another shape", [add("/tags/-", 7)], "wrong_type", "/0/path"),
]


def moved(operation: Any) -> Any:
    """The operation on ``/data``."""
    if not isinstance(operation, dict):
        return operation
    places = {name: f"/data{operation[name]}" for name in ("path", "from") if name in operation}
    return {**operation, **places}


async def send(
    client: httpx2.AsyncClient, blob_id: str, operations: Any, *, raw: bytes | None = None
) -> httpx2.Response:
    headers = {"content-type": JSON_PATCH, "if-match": '"v1"'}
    body = orjson.dumps(operations) if raw is None else raw
    return await client.patch(f"{BASE}/blobs/{blob_id}", content=body, headers=headers)


async def blob(client: httpx2.AsyncClient, document: Any) -> dict[str, Any]:
    return await make(client, data=document, content_type="application/json", title="Before")


async def stored(client: httpx2.AsyncClient, made: dict[str, Any]) -> bytes:
    """The canonical bytes of the data."""
    answer = await client.get(f"{BASE}/blobs/{made['id']}/content")
    assert answer.status_code == 200
    return answer.content


@pytest.mark.parametrize(
    "case", [*APPENDIX_A, *ADDING, *ESCAPING, *MOVING, *TESTING], ids=lambda case: case.name.replace(" ", "-")
)
async def test_a_patch_applies_as_the_rfc_says(client: httpx2.AsyncClient, case: Good) -> None:
    made = await blob(client, case.document)
    answer = await send(client, made["id"], [moved(operation) for operation in case.operations])
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == (1 if case.after is SAME else 2)
    after = case.document if case.after is SAME else case.after
    assert await stored(client, made) == canonical(after)
    first = await client.get(f"{BASE}/blobs/{made['id']}/content", params={"version": 1})
    assert first.content == canonical(case.document)


async def refused(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, made: dict[str, Any], document: Any, case: Bad
) -> dict[str, Any]:
    before = await count_rows(user.user_id)
    answer = await send(client, made["id"], case.operations)
    code = case.code if case.code in SPOKEN_FOR else "invalid_request"
    found = problem(answer, case.status, code, case.pointer)
    if case.pointer is not None:
        assert (case.pointer, case.code) in [(fault["pointer"], fault["code"]) for fault in found["errors"]]
    assert await count_rows(user.user_id) == before
    now = (await client.get(f"{BASE}/blobs/{made['id']}")).json()
    assert (now["version"], now["title"]) == (1, "Before")
    assert await stored(client, made) == canonical(document)
    return found


@pytest.mark.parametrize(
    "case",
    [
        *REFUSED_BY_APPENDIX_A,
        *(Bad(f"missing: {name}", document, [one], 422, "path_not_found", at) for name, document, one, at in MISSING),
        *(Bad(f"test: {name}", document, [one], 409, "test_failed", "/0/value") for name, document, one in FAILING),
    ],
    ids=lambda case: f"{case.name.replace(' ', '-')}-{case.operations[0]['op']}",
)
async def test_a_patch_that_does_not_apply_is_refused_at_its_place(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, case: Bad
) -> None:
    made = await blob(client, case.document)
    operations = [moved(operation) for operation in case.operations]
    told = Bad(case.name, case.document, operations, case.status, case.code, case.pointer)
    found = await refused(client, user, count_rows, made, case.document, told)
    assert len(found["errors"]) == 1


@pytest.mark.parametrize(
    ("operations", "status", "code", "pointer"),
    [case[1:] for case in MALFORMED],
    ids=[case[0].replace(" ", "-") for case in MALFORMED],
)
async def test_what_is_no_json_patch_is_refused_at_its_place(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, operations: Any, status: int, code: str, pointer: str
) -> None:
    document = {"a": {"b": 1}}
    made = await blob(client, document)
    await refused(client, user, count_rows, made, document, Bad("", document, operations, status, code, pointer))


@pytest.mark.parametrize(
    ("operations", "code", "pointer"), [case[1:] for case in ROOT], ids=[case[0].replace(" ", "-") for case in ROOT]
)
async def test_the_document_keeps_its_shape(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, operations: Any, code: str, pointer: str | None
) -> None:
    made = await blob(client, {"a": 1})
    case = Bad("", {"a": 1}, operations, 422, code, pointer)
    await refused(client, user, count_rows, made, {"a": 1}, case)


async def test_the_whole_document_may_be_replaced_but_for_what_is_immutable(client: httpx2.AsyncClient) -> None:
    made = await blob(client, {"a": 1})
    answer = await send(client, made["id"], [test("/title", "Before"), replace("", WHOLE)])
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert {name: found[name] for name in WHOLE} == WHOLE
    assert found["version"] == 2


async def test_no_operation_is_no_change(client: httpx2.AsyncClient) -> None:
    made = await blob(client, {"a": 1})
    answer = await send(client, made["id"], [])
    assert (answer.status_code, answer.json()["version"], answer.headers["etag"]) == (200, 1, '"v1"')


@pytest.mark.parametrize(
    "last",
    [test("/data/a", 2), remove("/data/nope"), add("/data/list/9", 1), replace("/title", 7), remove("/content_type")],
    ids=["a failed test", "a missing path", "a bad index", "a wrong document", "an immutable field"],
)
async def test_all_operations_hold_or_none(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, last: dict[str, Any]
) -> None:
    document = {"a": 1, "list": [1], "deep": {"x": {"y": "z"}}}
    made = await blob(client, document)
    operations = [
        replace("/title", "After"),
        remove("/data/a"),
        add("/data/a", 1),
        add("/data/list/0", 0),
        move("/data/deep/x", "/data/x"),
        copy("/data/x", "/data/deep/again"),
        add("/data/deep/again/more", 1),
        last,
    ]
    before = await count_rows(user.user_id)
    answer = await send(client, made["id"], operations)
    assert answer.status_code in {409, 422}
    assert answer.json()["errors"][0]["pointer"].startswith("/7/")
    assert await count_rows(user.user_id) == before
    assert await stored(client, made) == canonical(document)
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json()["title"] == "Before"


async def test_every_fault_of_a_patch_is_named_at_once(client: httpx2.AsyncClient) -> None:
    made = await blob(client, {})
    operations = [{"op": "bad", "path": "/a"}, {"op": "add", "path": "b"}, 7, move("/data/a", "/data/a/b")]
    found = problem(await send(client, made["id"], operations), 422, "invalid_request")
    named = [(fault["pointer"], fault["code"]) for fault in found["errors"]]
    assert named == [
        ("/0/op", "invalid_operation"),
        ("/1/path", "invalid_value"),
        ("/1/value", "missing_field"),
        ("/2", "wrong_type"),
        ("/3/path", "invalid_value"),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b'[{"op": "add", "path": "/data/baz", "value": "qux", "op": "remove"}]',
        b'[{"op": "add", "path": "/data/baz", "path": "/data/foo", "value": 1}]',
        b'[{"op": "add", "path": "/data/baz", "value": {"x": 1, "x": 2}}]',
        b'[{"op": "add", "path": "/data/baz", "value": 1, "\\u0076alue": 2}]',
    ],
    ids=["A.13", "two paths", "within the value", "spelled differently"],
)
async def test_a_member_named_twice_means_neither(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, raw: bytes
) -> None:
    made = await blob(client, {"foo": "bar", "baz": 0})
    before = await count_rows(user.user_id)
    found = problem(await send(client, made["id"], None, raw=raw), 400, "unparsable_body")
    assert "twice" in found["detail"]
    assert await count_rows(user.user_id) == before
