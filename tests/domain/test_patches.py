from __future__ import annotations

import copy
import time
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.canonical import canonical, load, same
from domain.errors import Conflict, Invalid, StudioError, TooLarge, UnsupportedMedia
from domain.patches import (
    ACCEPT_PATCH,
    ENVELOPE,
    JSON_PATCH,
    MERGE_PATCH,
    OPERATIONS_MAX,
    apply_operations,
    diff,
    merge_patch,
    parse_patch,
    patch_bytes,
    verified,
)
from tests.domain.values import names, texts, values

ROOT = {
    "content_type": "text/plain",
    "content": "x",
    "title": "t",
    "tags": ["a", "b"],
    "metadata": {"k": {"n": 1}},
}


def patched(document: Any, operations: list[Any]) -> Any:
    return parse_patch(JSON_PATCH, operations).apply(document)


def faults_of(media_type: str, body: Any, document: Any = None) -> list[tuple[str, str]]:
    with pytest.raises(StudioError) as caught:
        parse_patch(media_type, body).apply(ROOT if document is None else document)
    return [(fault.pointer, fault.code) for fault in caught.value.faults]


# RFC 6902, appendix A, and the corners that implementations get wrong.
GOOD = [
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "q"}], {"foo": ["bar", "q", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
    (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    ({"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"g": {}}}], {"foo": "bar", "child": {"g": {}}}),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}], {"foo": "bar", "baz": "qux"}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc"]}], {"foo": ["bar", ["abc"]]}),
    ({"foo": 1}, [{"op": "move", "from": "/foo", "path": "/foo"}], {"foo": 1}),
    ({"a": [1, 2, 3]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": [2, 3, 1]}),
    ({"a": [1]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2]}),
    ({"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
    ({"a": None}, [{"op": "test", "path": "/a", "value": None}, {"op": "remove", "path": "/a"}], {}),
    ({"0": 1}, [{"op": "add", "path": "/0", "value": 2}], {"0": 2}),
    ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
    ({"a": 1}, [{"op": "replace", "path": "", "value": [1]}, {"op": "add", "path": "/0", "value": 0}], [0, 1]),
    (
        {"a": {"b": []}},
        [{"op": "copy", "from": "/a", "path": "/c"}, {"op": "add", "path": "/c/b/-", "value": 1}],
        {"a": {"b": []}, "c": {"b": [1]}},
    ),
    ({"a": 1, "ab": 2}, [{"op": "move", "from": "/a", "path": "/abc"}], {"ab": 2, "abc": 1}),
]
BAD = [
    ([{"op": "test", "path": "/tags/0", "value": "z"}], [("/0/value", "test_failed")]),
    ([{"op": "test", "path": "/metadata/k/n", "value": True}], [("/0/value", "test_failed")]),
    ([{"op": "test", "path": "/metadata/k/n", "value": "1"}], [("/0/value", "test_failed")]),
    ([{"op": "test", "path": "/tags", "value": ["a"]}], [("/0/value", "test_failed")]),
    ([{"op": "replace", "path": "/nope", "value": 1}], [("/0/path", "path_not_found")]),
    ([{"op": "add", "path": "/nope/x", "value": 1}], [("/0/path", "path_not_found")]),
    ([{"op": "add", "path": "/title/x", "value": 1}], [("/0/path", "path_not_found")]),
    ([{"op": "remove", "path": "/tags/2"}], [("/0/path", "path_not_found")]),
    ([{"op": "remove", "path": "/tags/-"}], [("/0/path", "path_not_found")]),
    ([{"op": "remove", "path": ""}], [("/0/path", "path_not_found")]),
    ([{"op": "add", "path": "/tags/3", "value": 1}], [("/0/path", "path_not_found")]),
    ([{"op": "add", "path": "/tags/01", "value": 1}], [("/0/path", "path_not_found")]),
    ([{"op": "add", "path": "/tags/-1", "value": 1}], [("/0/path", "path_not_found")]),
    ([{"op": "add", "path": "/tags/1e0", "value": 1}], [("/0/path", "path_not_found")]),
    ([{"op": "add", "path": "/tags/\u0661", "value": 1}], [("/0/path", "path_not_found")]),
    ([{"op": "add", "path": "/tags/" + "9" * 5000, "value": 1}], [("/0/path", "path_not_found")]),
    (
        [{"op": "test", "path": "/title", "value": "t"}, {"op": "copy", "from": "/no", "path": "/x"}],
        [("/1/from", "path_not_found")],
    ),
    ([{"op": "move", "from": "/tags/7", "path": "/title"}], [("/0/from", "path_not_found")]),
    ([{"op": "spam", "path": "/title"}], [("/0/op", "invalid_operation")]),
    (
        [{"op": "splice", "path": "/content", "at": 0, "remove": "", "insert": "x"}],
        [("/0/op", "invalid_operation")],
    ),
    ([{"op": ["add"], "path": "/title", "value": 1}], [("/0/op", "invalid_operation")]),
    ([{"path": "/title"}], [("/0/op", "missing_field")]),
    ([{"op": "add", "value": 1}], [("/0/path", "missing_field")]),
    ([{"op": "add", "path": "/a"}], [("/0/value", "missing_field")]),
    ([{"op": "copy", "path": "/a"}], [("/0/from", "missing_field")]),
    ([{"op": "remove", "path": "title"}], [("/0/path", "invalid_value")]),
    ([{"op": "remove", "path": "/a~2b"}], [("/0/path", "invalid_value")]),
    ([{"op": "remove", "path": "/a~"}], [("/0/path", "invalid_value")]),
    ([{"op": "remove", "path": 3}], [("/0/path", "wrong_type")]),
    ([{"op": "move", "from": "/metadata", "path": "/metadata/k/x"}], [("/0/path", "invalid_value")]),
    ([{"op": "move", "from": "", "path": "/metadata/x"}], [("/0/path", "invalid_value")]),
    (["x"], [("/0", "wrong_type")]),
    ({"op": "add"}, [("", "wrong_type")]),
    (
        [{"op": "bad", "path": "/a"}, {"op": "add", "path": "b"}],
        [("/0/op", "invalid_operation"), ("/1/path", "invalid_value"), ("/1/value", "missing_field")],
    ),
    ([{"op": "replace", "path": "/content_type", "value": "text/html"}], [("/0/path", "immutable_field")]),
    (
        [{"op": "test", "path": "/title", "value": "t"}, {"op": "remove", "path": "/content_type"}],
        [("/1/path", "immutable_field")],
    ),
    ([{"op": "add", "path": "/schema_id", "value": "x"}], [("/0/path", "immutable_field")]),
]


@pytest.mark.parametrize(("document", "operations", "expected"), GOOD)
def test_rfc_6902_patches_apply(document: Any, operations: list[Any], expected: Any) -> None:
    before = copy.deepcopy(document)
    assert canonical(patched(document, operations)) == canonical(expected)
    assert canonical(document) == canonical(before)


@pytest.mark.parametrize(("operations", "faults"), BAD)
def test_bad_rfc_6902_patches_name_the_member(operations: Any, faults: list[tuple[str, str]]) -> None:
    before = copy.deepcopy(ROOT)
    assert faults_of(JSON_PATCH, operations) == faults
    assert before == ROOT


def test_a_failed_test_is_a_conflict_and_a_bad_operation_has_its_own_code() -> None:
    with pytest.raises(Conflict) as conflict:
        patched(ROOT, [{"op": "test", "path": "/title", "value": "?"}])
    assert conflict.value.problem_code == "test_failed"
    with pytest.raises(Invalid) as invalid:
        parse_patch(JSON_PATCH, [{"op": "spam", "path": ""}])
    assert invalid.value.problem_code == "invalid_operation"


def test_a_patch_is_atomic() -> None:
    document = {"a": [1, {"b": 2}]}
    with pytest.raises(Invalid):
        patched(
            document,
            [
                {"op": "add", "path": "/a/1/c", "value": 3},
                {"op": "remove", "path": "/a/0"},
                {"op": "remove", "path": "/z"},
            ],
        )
    assert document == {"a": [1, {"b": 2}]}


def test_values_of_a_patch_are_not_shared_with_what_later_patches_write() -> None:
    operations: list[dict[str, Any]] = [
        {"op": "add", "path": "/a", "value": {"l": []}},
        {"op": "add", "path": "/a/l/-", "value": 1},
    ]
    assert patched({}, operations) == patched({}, operations) == {"a": {"l": [1]}}
    assert operations[0]["value"] == {"l": []}


@given(st.dictionaries(names, values, min_size=1, max_size=3), st.data())
def test_random_patches_agree_with_the_library(document: dict[str, Any], data: st.DataObject) -> None:
    operations = data.draw(st.lists(operations_on(document), max_size=5))
    try:
        expected = jsonpatch.apply_patch(document, operations)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
        with pytest.raises((Invalid, Conflict)):
            patched(document, operations)
    else:
        assert same(patched(document, operations), expected)


def operations_on(document: Any) -> st.SearchStrategy[dict[str, Any]]:
    paths = st.sampled_from(sorted({*pointers(document, ""), "/a", "/b/0", "/a/-"} - {""}))
    return st.one_of(
        st.fixed_dictionaries({"op": st.sampled_from(["add", "replace"]), "path": paths, "value": values}),
        st.fixed_dictionaries({"op": st.just("remove"), "path": paths}),
        st.fixed_dictionaries({"op": st.just("copy"), "path": paths, "from": paths}),
    )


def pointers(value: Any, here: str) -> list[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [pointers(item, f"{here}/{str(name).replace('~', '~0').replace('/', '~1')}") for name, item in inner]
    return [here, *(pointer for found in below for pointer in found)]


def test_copies_that_double_are_stopped() -> None:
    doubling = [{"op": "copy", "from": "/metadata", "path": f"/metadata/k{n}"} for n in range(40)]
    with pytest.raises(TooLarge) as caught:
        patched(ROOT, doubling)
    assert caught.value.problem_code == "content_too_large"


def test_the_number_of_operations_is_bounded() -> None:
    operation = {"op": "test", "path": "/title", "value": "t"}
    parse_patch(JSON_PATCH, [operation] * OPERATIONS_MAX).apply(ROOT)
    assert faults_of(JSON_PATCH, [operation] * (OPERATIONS_MAX + 1)) == [("", "too_many")]


def test_the_depth_of_a_patch_is_bounded() -> None:
    value: Any = 1
    for _ in range(100):
        value = {"a": value}
    for media_type, body in (
        (JSON_PATCH, [{"op": "add", "path": "/a", "value": value}]),
        (MERGE_PATCH, value),
        (ENVELOPE, {"delta": {"patch": value}}),
    ):
        with pytest.raises(TooLarge, match="nested"):
            parse_patch(media_type, body)


# RFC 7396, appendix A, all of it.
MERGES = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), MERGES)
def test_rfc_7396_patches_merge(target: Any, patch: Any, expected: Any) -> None:
    before = copy.deepcopy((target, patch))
    assert merge_patch(target, patch) == expected
    assert (target, patch) == before


def test_a_merge_patch_changes_the_document() -> None:
    patch = parse_patch(
        f"{MERGE_PATCH}; charset=utf-8", {"title": "new", "metadata": {"k": None}, "content_type": "text/plain"}
    )
    assert patch.apply(ROOT) == {**ROOT, "title": "new", "metadata": {}}


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ([], [("", "wrong_type")]),
        (None, [("", "wrong_type")]),
        ({"content_type": "text/html"}, [("/content_type", "immutable_field")]),
        (
            {"content_type": None, "schema_id": "s"},
            [("/content_type", "immutable_field"), ("/schema_id", "immutable_field")],
        ),
    ],
)
def test_bad_merge_patches_name_the_member(body: Any, faults: list[tuple[str, str]]) -> None:
    assert faults_of(MERGE_PATCH, body) == faults


def test_the_example_of_the_seed_applies() -> None:
    body = load('{"delta": {"operation": "update", "patch": { "content": "The quick brown fox jumps" }}}')
    patch = parse_patch(ENVELOPE, body)
    assert patch.from_version is None
    assert patch.apply(ROOT) == {**ROOT, "content": "The quick brown fox jumps"}
    assert parse_patch(ENVELOPE, {"delta": {"patch": {}, "from_version": 7}}).from_version == 7


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ([], [("", "wrong_type")]),
        ({}, [("/delta", "missing_field")]),
        ({"content": "x"}, [("/delta", "missing_field")]),
        ({"delta": []}, [("/delta", "wrong_type")]),
        ({"delta": {"patch": {}}, "x": 1}, [("/x", "unknown_field")]),
        ({"delta": {"patch": {}, "x": 1}}, [("/delta/x", "unknown_field")]),
        ({"delta": {"operation": "update"}}, [("/delta/patch", "missing_field")]),
        ({"delta": {"operation": "delete", "patch": {}}}, [("/delta/operation", "invalid_operation")]),
        ({"delta": {"patch": [{"op": "add"}]}}, [("/delta/patch", "wrong_type")]),
        ({"delta": {"patch": {}, "from_version": "3"}}, [("/delta/from_version", "wrong_type")]),
        ({"delta": {"patch": {}, "from_version": True}}, [("/delta/from_version", "wrong_type")]),
        ({"delta": {"patch": {}, "from_version": 0}}, [("/delta/from_version", "wrong_type")]),
        ({"delta": {"patch": {"content_type": "text/html"}}}, [("/delta/patch/content_type", "immutable_field")]),
    ],
)
def test_bad_envelopes_name_the_member(body: Any, faults: list[tuple[str, str]]) -> None:
    assert faults_of(ENVELOPE, body) == faults


def test_another_media_type_is_told_which_ones_are_taken() -> None:
    for media_type in ("text/plain", "", "application/xml", "application/json-patch"):
        with pytest.raises(UnsupportedMedia) as caught:
            parse_patch(media_type, {})
        assert caught.value.members == {"accept_patch": ACCEPT_PATCH}


@given(values, values)
def test_every_difference_is_exact_both_ways(before: Any, after: Any) -> None:
    patch, inverse = diff(before, after)
    stored = load(patch_bytes(patch)), load(patch_bytes(inverse))
    assert canonical(apply_operations(before, stored[0])) == canonical(after)
    assert canonical(apply_operations(after, stored[1])) == canonical(before)
    assert (patch == []) == same(before, after)


@given(
    st.lists(
        st.one_of(
            st.sampled_from([0, 1, 2, True, 1.0, None]), st.dictionaries(st.sampled_from("ab"), st.integers(0, 2))
        ),
        max_size=12,
    ),
    st.data(),
)
def test_differences_of_lists_are_exact(before: list[Any], data: st.DataObject) -> None:
    after = data.draw(st.permutations(before)) if before else []
    after = after[: data.draw(st.integers(0, len(after)))] + data.draw(
        st.lists(st.sampled_from([0, 1.0, {"a": 1}]), max_size=4)
    )
    patch, inverse = diff({"data": before}, {"data": after})
    assert same(apply_operations({"data": before}, patch), {"data": after})
    assert same(apply_operations({"data": after}, inverse), {"data": before})


# Long items, so that the difference really is made of operations and not of one shorter replacement.
long_items = st.builds(lambda n: {"id": n, "text": f"{n} item " * 30, "parts": [n, {"n": n}]}, st.integers(0, 6))


@given(st.lists(long_items, max_size=9), st.lists(long_items, max_size=9), st.lists(st.integers(0, 8), max_size=3))
def test_differences_of_lists_of_long_items_are_exact_and_made_of_operations(
    before: list[Any], after: list[Any], edited: list[int]
) -> None:
    filler = [{"id": f"filler {n}", "text": "filler " * 30} for n in range(20)]
    after = [{**item, "parts": []} if index in edited else item for index, item in enumerate(after)]
    old, new = {"data": [*before, *filler, *after]}, {"data": [*after, *filler, *before]}
    patch, inverse = diff(old, new)
    assert same(apply_operations(old, patch), new)
    assert same(apply_operations(new, inverse), old)
    assert all(operation["path"] != "/data" for operation in patch)


@given(texts(), texts(), texts())
def test_differences_of_long_texts_are_exact(head: str, middle: str, other: str) -> None:
    filler = "".join(f"line {n} of a long text\n" for n in range(20))
    before, after = {"content": head + filler + middle + filler}, {"content": head + filler + other + filler}
    patch, inverse = diff(before, after)
    assert apply_operations(before, patch) == after
    assert apply_operations(after, inverse) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            [{"x": ["a", {"y": ["b"]}], "z": "a"}, {"x": ["c", {"d": ["d"]}], "z": "c"}, {}],
            [{"x": ["c", {"y": ["d"]}], "z": "c"}, {}],
        ),
        (
            {"a": [{"id": [1]}, {"id": [2]}], "b": [{"id": 5}]},
            {"a": [{"id": []}, {"id": [1]}], "b": [{"id": 5, "newKey": 2}]},
        ),
        (["a", "b", ["d", "e"], "f"], ["a", "d", ["e", "g"]]),
        ({"a": 1, "b": 0}, {"a": True, "b": 0.0}),
    ],
)
def test_differences_that_defeat_the_library_are_exact(before: Any, after: Any) -> None:
    patch, inverse = diff(before, after)
    assert same(apply_operations(before, patch), after)
    assert same(apply_operations(after, inverse), before)


def test_a_changed_paragraph_of_a_200_page_text_is_a_small_patch() -> None:
    pages = [f"Paragraph {n}. " + "Words of a long book. " * 30 for n in range(700)]
    before = {"content": "\n\n".join(pages)}
    pages[3], pages[650] = pages[3].replace("long", "short", 1), "Rewritten 🙂 altogether."
    after = {"content": "\n\n".join(pages)}
    assert len(before["content"]) > 400_000
    started = time.process_time()
    patch, inverse = diff(before, after)
    assert time.process_time() - started < 1
    assert {operation["op"] for operation in patch} == {"splice"}
    assert len(patch_bytes(patch)) < 1200
    assert len(patch_bytes(inverse)) < 1200


def test_an_inserted_item_is_one_operation() -> None:
    items = [{"id": n} for n in range(300)]
    patch, _ = diff({"data": items}, {"data": [*items[:100], {"id": "new"}, *items[100:]]})
    assert patch == [{"op": "add", "path": "/data/100", "value": {"id": "new"}}]


def test_a_field_that_changed_altogether_is_replaced() -> None:
    before, after = {"data": {str(n): n for n in range(500)}}, {"data": {str(n): n + 1 for n in range(500)}}
    assert [operation["op"] for operation in diff(before, after)[0]] == ["replace"]
    text = diff({"content": "a b " * 100}, {"content": "c d " * 90})[0]
    assert [operation["op"] for operation in text] == ["replace"]


def test_a_wrong_patch_is_never_stored() -> None:
    before, after = {"a": 1}, {"a": 1.0}
    patch, inverse = diff(before, after)
    verified(before, after, patch, inverse)
    for wrong in (([], inverse), (patch, []), (inverse, patch)):
        with pytest.raises(StudioError) as caught:
            verified(before, after, *wrong)
        assert caught.value.problem_code == "integrity"


def test_a_difference_is_verified_where_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domain.diffs._root_edits", lambda *_: [])
    with pytest.raises(StudioError, match="new state"):
        diff({"a": 1}, {"a": 2})


def test_a_splice_refuses_a_text_that_it_was_not_made_for() -> None:
    splice = {"op": "splice", "path": "/content", "at": 2, "remove": "cd", "insert": "X"}
    assert apply_operations({"content": "abcdef"}, [splice]) == {"content": "abXef"}
    for content in ("abXXef", "ab", "", 7):
        with pytest.raises(Invalid):
            apply_operations({"content": content}, [splice])
