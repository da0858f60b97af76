from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.documents import (
    DEPTH_MAX,
    JSON_BYTES_MAX,
    METADATA_BYTES_MAX,
    PREVIEW_CHARACTERS,
    Document,
    body_bytes,
    canonical,
    content_hash,
    content_size,
    cutoff_hash,
    document_hash,
    load,
    meta_hash,
    preview,
    same,
    visible,
)
from domain.errors import Invalid, Malformed, TooLarge
from tests.domain.values import documents, json_document, text_document, values


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@given(values)
def test_canonical_json_reads_back_as_the_same_value(value: Any) -> None:
    again = load(canonical(value))
    assert canonical(again) == canonical(value)
    assert repr(json.loads(canonical(value))) == repr(json.loads(json.dumps(value, sort_keys=True)))


@given(st.dictionaries(st.text(), st.integers(0, 9)))
def test_the_order_of_members_does_not_matter(value: dict[str, int]) -> None:
    assert canonical(value) == canonical(dict(reversed(value.items())))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": "é\0\n\U0001f600"}, '{"a":"é\\u0000\\n\U0001f600","b":1}'),
        ([1, 1.0, True, None, -0.0, 1e16, 0.1], "[1,1.0,true,null,-0.0,1e+16,0.1]"),
        ([2**64 - 1, -(2**63)], "[18446744073709551615,-9223372036854775808]"),
        ({"\uffff": 1, "\U0001f600": 2}, '{"\uffff":1,"\U0001f600":2}'),
    ],
)
def test_the_canonical_form_never_changes_because_hashes_are_stored(value: Any, expected: str) -> None:
    assert canonical(value) == expected.encode()


@pytest.mark.parametrize(
    ("value", "code", "pointer"),
    [
        ({"a": [0, 2**64]}, "number_out_of_range", "/a/1"),
        ({"a": -(2**63) - 1}, "number_out_of_range", "/a"),
        ({"a/b": math.nan}, "number_out_of_range", "/a~1b"),
        ([math.inf], "number_out_of_range", "/0"),
        ({"a": ["\ud800"]}, "invalid_value", "/a/0"),
        ({"a": {1: 2}}, "wrong_type", "/a"),
        ({"a": (1, 2)}, "wrong_type", "/a"),
        ([b"x"], "wrong_type", "/0"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(value: Any, code: str, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        canonical(value)
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [(pointer, code)]


def test_a_name_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        canonical({"x": {"\udc00": 1}})
    assert caught.value.faults[0].pointer == "/x"


def test_depth_is_bounded_exactly() -> None:
    canonical(nested(DEPTH_MAX))
    for value in (nested(DEPTH_MAX + 1), nested(5000)):
        with pytest.raises(TooLarge) as caught:
            canonical(value)
        assert caught.value.problem_code == "too_deep"
    assert caught.value.faults[0].pointer == "/0" * DEPTH_MAX


def test_a_value_that_expands_is_refused_before_it_is_written() -> None:
    value: Any = "x" * 1000
    for _ in range(40):
        value = [value, value]
    with pytest.raises(TooLarge) as caught:
        canonical(value)
    assert caught.value.problem_code == "content_too_large"


def test_size_is_bounded_in_bytes_not_characters() -> None:
    canonical("x" * (JSON_BYTES_MAX - 2))
    with pytest.raises(TooLarge):
        canonical("é" * (JSON_BYTES_MAX // 2))


@pytest.mark.parametrize(
    ("body", "error", "code"),
    [
        (b'{"a": tru}', Malformed, "unparsable_body"),
        (b"", Malformed, "unparsable_body"),
        (b"NaN", Malformed, "unparsable_body"),
        (b'"\\ud800"', Malformed, "unparsable_body"),
        (b'"\xff"', Malformed, "unparsable_body"),
        (b"[1e400]", Invalid, "number_out_of_range"),
        (b"[18446744073709551616]", Invalid, "number_out_of_range"),
        (b"[-9223372036854775809]", Invalid, "number_out_of_range"),
        (b'{"a":' + b"9" * 100_000 + b"}", Invalid, "number_out_of_range"),
        (b"[" * 100_000, TooLarge, "too_deep"),
        (b"[" * 1020 + b"1" * 19 + b"]" * 1020, TooLarge, "too_deep"),
    ],
)
def test_bad_json_text_is_refused_by_kind(body: bytes, error: type[Exception], code: str) -> None:
    with pytest.raises(error) as caught:
        canonical(load(body))
    assert getattr(caught.value, "problem_code", None) == code


def test_long_digits_that_are_not_integers_are_read() -> None:
    digits = "1" * 30
    assert load(f'["{digits}", 0.{digits}, 18446744073709551615, 1e-{"0" * 30}1]') == [
        digits,
        float(f"0.{digits}"),
        2**64 - 1,
        0.1,
    ]


def test_a_malformed_body_names_the_offset() -> None:
    with pytest.raises(Malformed, match="offset 6"):
        load(b'{"a": tru}')


@given(values, values)
def test_same_is_equality_of_canonical_bytes(left: Any, right: Any) -> None:
    assert same(left, right) == (canonical(left) == canonical(right))
    assert same(left, load(canonical(left)))


def test_one_true_and_one_point_nought_are_three_values() -> None:
    different = [1, 1.0, True, "1", [1], [1.0], [True], 0.0, -0.0, 0, False, None, {}, []]
    assert all(same(left, right) == (left is right) for left in different for right in different)


@given(documents)
def test_a_document_survives_json_and_bytes(document: Document) -> None:
    assert Document.parse(document.to_json()) == document
    assert Document.parse(load(document.to_bytes())).to_bytes() == document.to_bytes()
    assert hash(Document.stored(load(document.to_bytes()))) == hash(document)


@given(documents, documents)
def test_documents_are_equal_when_their_bytes_are(left: Document, right: Document) -> None:
    assert (left == right) == (left.to_bytes() == right.to_bytes())


def test_content_type_follows_from_the_body_and_may_be_named() -> None:
    assert Document.parse({"content": "x"}).content_type == "text/plain"
    assert Document.parse({"data": None}).content_type == "application/json"
    for content_type in ("application/json", "application/ld+json", "Application/JSON; charset=utf-8"):
        assert not Document.parse({"data": 1, "content_type": content_type}).is_text
    for content_type in ("text/markdown", "TEXT/html ; charset=utf-8"):
        assert Document.parse({"content": "x", "content_type": content_type}).is_text


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        ([], [("", "wrong_type")]),
        ({}, [("/content", "missing_field")]),
        ({"content": "x", "data": 1}, [("/data", "invalid_value")]),
        ({"content": 1}, [("/content", "wrong_type")]),
        ({"content": None}, [("/content", "wrong_type")]),
        ({"content": "x", "content_type": "application/json"}, [("/content", "invalid_value")]),
        ({"data": "x", "content_type": "text/plain"}, [("/data", "invalid_value")]),
        ({"content": "x", "content_type": "image/png"}, [("/content_type", "invalid_value")]),
        ({"content": "x", "content_type": "text"}, [("/content_type", "invalid_value")]),
        ({"content": "x", "content_type": "text/plain\n"}, [("/content_type", "invalid_value")]),
        ({"content": "x", "content_type": "text/" + "x" * 300}, [("/content_type", "invalid_value")]),
        ({"content": "x", "content_type": 1}, [("/content_type", "wrong_type")]),
        ({"content": "x", "a/b": 1}, [("/a~1b", "unknown_field")]),
        ({"content": "x", "title": None}, [("/title", "wrong_type")]),
        ({"content": "x", "title": "x" * 501}, [("/title", "invalid_value")]),
        ({"content": "x", "title": "a\0b"}, [("/title", "invalid_value")]),
        ({"content": "x", "tags": "a"}, [("/tags", "wrong_type")]),
        (
            {"content": "x", "tags": ["a", 1, "", "a"]},
            [("/tags/1", "wrong_type"), ("/tags/2", "invalid_value"), ("/tags/3", "invalid_value")],
        ),
        ({"content": "x", "tags": [str(n) for n in range(51)]}, [("/tags", "too_many")]),
        ({"content": "x", "metadata": []}, [("/metadata", "wrong_type")]),
        ({"content": "x", "metadata": {"a": 2**64}}, [("/metadata/a", "number_out_of_range")]),
        ({"content": "x", "metadata": {"a": "x" * METADATA_BYTES_MAX}}, [("/metadata", "content_too_large")]),
        ({"content": "\ud800"}, [("/content", "invalid_value")]),
        ({"data": [2**64]}, [("/data/0", "number_out_of_range")]),
    ],
)
def test_a_bad_document_names_each_field(value: Any, faults: list[tuple[str, str]]) -> None:
    with pytest.raises(Invalid) as caught:
        Document.parse(value)
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == faults


def test_all_faults_come_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        Document.parse({"content": 1, "title": 2, "tags": 3, "metadata": 4, "foo": 5})
    assert {fault.pointer for fault in caught.value.faults} == {"/content", "/title", "/tags", "/metadata", "/foo"}


def test_data_and_metadata_may_be_as_deep_as_any_value() -> None:
    json_document(nested(DEPTH_MAX))
    for field in ({"data": nested(DEPTH_MAX + 1)}, {"data": 1, "metadata": {"a": nested(DEPTH_MAX)}}):
        with pytest.raises(TooLarge, match="nested"):
            Document.parse(field)


def test_the_content_hash_is_of_the_served_bytes_alone() -> None:
    text = text_document("é\0", title="a")
    assert body_bytes(text) == "é\0".encode()
    assert content_size(text) == 3
    assert content_hash(text) == document_hash("é\0".encode()) == content_hash(text_document("é\0", title="b"))
    assert body_bytes(json_document({"b": 1, "a": None})) == b'{"a":null,"b":1}'
    assert document_hash(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_cut_off_ignores_what_a_provider_does_not_read() -> None:
    first = json_document({"a": 1, "ms": 10}, title="one", tags=["x"], metadata={"m": 1})
    second = json_document({"a": 1, "ms": 99}, title="two", tags=["y"], metadata={"m": 2})
    assert cutoff_hash(first) != cutoff_hash(second)
    assert cutoff_hash(first, body={"a": 1}) == cutoff_hash(second, body={"a": 1})
    for field in ("title", "tags", "metadata"):
        assert cutoff_hash(first, body={"a": 1}, reads=[field]) != cutoff_hash(second, body={"a": 1}, reads=[field])
    assert cutoff_hash(json_document("x")) != cutoff_hash(text_document("x"))


def test_the_meta_hash_is_of_title_tags_and_metadata_alone() -> None:
    found = {
        meta_hash(text_document(text, title=title, tags=own)) for text in "xy" for title in "ab" for own in ([], ["t"])
    }
    assert len(found) == 4


def test_schemas_see_a_text_with_its_metadata_and_json_as_it_is() -> None:
    assert visible(text_document("x", metadata={"a": 1})) == {"content": "x", "metadata": {"a": 1}}
    assert visible(json_document([1])) == [1]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (text_document("a\0b"), "a\ufffdb"),
        (text_document("x" * 600), "x" * PREVIEW_CHARACTERS),
        (json_document("plain"), "plain"),
        (json_document({"expanded": "long", "text": "short", "content": ""}), "long"),
        (json_document({"n": 1}), '{"n":1}'),
        (json_document(None), "null"),
        (json_document([1, 2]), "[1,2]"),
    ],
)
def test_the_preview_is_what_a_person_would_read_first(document: Document, expected: str) -> None:
    assert preview(document) == expected


@given(documents)
def test_every_document_has_a_preview_that_postgresql_can_hold(document: Document) -> None:
    shown = preview(document)
    assert len(shown) <= PREVIEW_CHARACTERS
    assert "\0" not in shown
