from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.merge import merge
from tests.domain.values import json_document, text_document

KEYED = {
    "properties": {
        "items": {"$ref": "#/$defs/list"},
        "plain": {"type": "array"},
    },
    "$defs": {
        "list": {
            "type": "array",
            "x-merge-key": "id",
            "items": {"properties": {"inner": {"$ref": "#/$defs/list"}}},
        }
    },
}


def merge_items(base: Any, ours: Any, theirs: Any, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    sides = [json_document({"items": items}) for items in (base, ours, theirs)]
    result = merge(*sides, schema=KEYED, **options)
    return result.document.body["items"], [conflict.to_json() for conflict in result.conflicts]


def ids(text: str) -> list[dict[str, str]]:
    return [{"id": name} for name in text]


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        ("abc", "abcd", "xabc", "xabcd"),
        ("abc", "ac", "abcd", "acd"),
        ("abc", "a", "c", ""),
        ("abc", "cba", "abcd", "cdba"),
        ("abc", "bca", "bca", "bca"),
        ("abc", "acb", "bc", "cb"),
        ("a", "ax", "ay", "axy"),
        ("a", "ay", "ax", "axy"),
        ("", "xy", "xy", "xy"),
    ],
)
def test_keyed_arrays_merge_additions_removals_and_order(base: str, ours: str, theirs: str, expected: str) -> None:
    assert merge_items(ids(base), ids(ours), ids(theirs)) == (ids(expected), [])
    assert merge_items(ids(base), ids(theirs), ids(ours)) == (ids(expected), [])


def test_items_merge_by_member_and_conflicts_name_their_place_in_the_merged_array() -> None:
    base = [{"id": 1, "a": 1, "b": 1, "inner": ids("p")}]
    ours = [{"id": 1, "a": 2, "b": 1, "inner": ids("pq")}]
    theirs = [{"id": 0}, {"id": 1, "a": 3, "b": 2, "inner": ids("op")}]
    assert merge_items(base, ours, theirs) == (
        [{"id": 0}, {"id": 1, "a": 2, "b": 2, "inner": ids("opq")}],
        [{"pointer": "/data/items/1/a", "base": 1, "ours": 2, "theirs": 3}],
    )


def test_an_item_removed_here_and_changed_there_is_a_conflict_that_names_it() -> None:
    base, theirs = [{"id": 7, "a": 1}, {"id": 8}], [{"id": 7, "a": 2}, {"id": 8}]
    conflict = {"pointer": "/data/items", "item": 7, "base": base[0], "theirs": theirs[0]}
    assert merge_items(base, [{"id": 8}], theirs) == ([{"id": 8}], [conflict])
    taken, _ = merge_items(base, [{"id": 8}], theirs, on_conflict="take_machine")
    assert taken == theirs


def test_two_different_orders_are_a_conflict_about_the_order_only() -> None:
    items, conflicts = merge_items(ids("abc"), ids("cba"), [{"id": "b"}, {"id": "a", "x": 1}, {"id": "c"}, {"id": "d"}])
    assert items == [{"id": "c"}, {"id": "d"}, {"id": "b"}, {"id": "a", "x": 1}]
    assert conflicts == [
        {
            "pointer": "/data/items",
            "about": "order",
            "base": ["a", "b", "c"],
            "ours": ["c", "b", "a"],
            "theirs": ["b", "a", "c"],
        }
    ]


@pytest.mark.parametrize(
    "broken",
    [[{"id": 1}, {"id": 1}], [{"id": 1}, {}], [{"id": None}], [{"id": [1]}], [1], {"id": 1}, "text"],
    ids=["twice", "missing", "null", "array", "no object", "no array", "text"],
)
def test_an_array_whose_items_cannot_be_told_apart_is_one_value(broken: Any) -> None:
    base, theirs = [{"id": 1}], [{"id": 1}, {"id": 2}]
    items, [conflict] = merge_items(base, broken, theirs)
    assert items == broken
    assert conflict == {"pointer": "/data/items", "base": base, "ours": broken, "theirs": theirs}


def test_one_true_and_the_text_1_are_three_keys() -> None:
    items, conflicts = merge_items([], [{"id": 1}, {"id": True}], [{"id": "1"}])
    assert (sorted(str(item["id"]) for item in items), conflicts) == (["1", "1", "True"], [])


def test_arrays_without_a_key_are_one_value_and_without_a_schema_all_are() -> None:
    plain = [json_document({"plain": ids(text)}) for text in ("a", "ab", "ac")]
    assert [conflict.pointer for conflict in merge(*plain, schema=KEYED).conflicts] == ["/data/plain"]
    keyed = [json_document({"items": ids(text)}) for text in ("a", "ab", "ac")]
    assert [conflict.pointer for conflict in merge(*keyed).conflicts] == ["/data/items"]
    assert not merge(*keyed, schema=KEYED).conflicts


def test_the_schema_of_a_text_speaks_of_its_metadata() -> None:
    schema = {"properties": {"metadata": {"properties": {"notes": {"x-merge-key": "id", "type": "array"}}}}}
    sides = [text_document("x", metadata={"notes": ids(text)}) for text in ("a", "ab", "ca")]
    result = merge(*sides, schema=schema)
    assert (result.document.metadata, result.conflicts) == ({"notes": ids("cab")}, ())


@given(*[st.lists(st.sampled_from("abcde"), unique=True)] * 3)
def test_keyed_arrays_obey_the_laws(base: list[str], ours: list[str], theirs: list[str]) -> None:
    one, two, three = ids("".join(base)), ids("".join(ours)), ids("".join(theirs))
    items, conflicts = merge_items(one, two, three)
    swapped, others = merge_items(one, three, two)
    assert len(conflicts) == len(others)
    assert conflicts or items == swapped
    names = {item["id"] for item in items}
    assert set(ours) - set(base) <= names
    assert set(theirs) - set(base) <= names
    assert not (set(base) - set(ours)) & names
    assert len(names) == len(items)
