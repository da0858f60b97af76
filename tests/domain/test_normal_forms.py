"""What early cut-off compares: volatile fields left out, white space folded where a schema wants that."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.documents import Document
from domain.normal_forms import fold, folded, normal_body
from domain.schema_checks import definition_faults
from domain.schemas import Schema
from domain.settlements import output_cutoff
from tests.domain.values import json_document, text_document, texts

PROSE = {"properties": {"text": {"x-cutoff": "normal", "properties": {"code": {"x-cutoff": "bytes"}}},
                        "rows": {"items": {"$ref": "#/$defs/row"}}},
         "$defs": {"row": {"properties": {"said": {"x-cutoff": "normal"}}}}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("", ""),
        (" \n\t\n", ""),
        ("a  b\tc", "a b c"),
        (" a \r\n b\n", "a b"),
        ("a\n\nb", "a\n\nb"),
        ("\n\na\n \n\n\r\n b \n", "a\n\nb"),
        ("a\u00a0b", "a b"),
    ],
)
def test_white_space_is_folded_and_paragraphs_stay(text: str, same: str) -> None:
    assert folded(text) == same


@given(texts(), st.sampled_from([" ", "\n", "\t ", "\r\n"]))
def test_folding_twice_is_folding_once_and_words_and_paragraphs_survive(text: str, blank: str) -> None:
    once = folded(text)
    assert folded(once) == once
    assert once.split() == text.split()
    assert folded(f"{blank}{text}{blank}") == once
    assert folded(text.replace(" ", f" {blank.replace(chr(10), '').strip(chr(13))} ")) == once


def test_only_what_the_schema_names_is_folded_down_to_where_it_says_otherwise() -> None:
    value = {"text": {"a": " x ", "code": " x ", "list": [" y "]}, "rows": [{"said": " z ", "id": " z "}], "other": " "}
    assert fold(PROSE, value) == {
        "text": {"a": "x", "code": " x ", "list": ["y"]}, "rows": [{"said": "z", "id": " z "}], "other": " ",
    }  # fmt: skip
    assert value["other"] == " "


def test_said_both_ways_of_one_place_bytes_hold() -> None:
    assert fold({"x-cutoff": "normal", "allOf": [{"x-cutoff": "bytes"}]}, " a ") == " a "


@pytest.mark.parametrize("definition", [{"x-cutoff": "normal"}, {"properties": {"content": {"x-cutoff": "normal"}}}])
def test_a_text_document_is_folded_by_what_is_said_of_its_content(definition: Any) -> None:
    assert normal_body(definition, text_document("a\n b ")) == "a b"
    assert normal_body({}, text_document("a\n b ")) is None


def test_text_counts_to_the_last_blank_unless_the_schema_asks_for_folding() -> None:
    def hashes(*documents: Document, **definition: Any) -> int:
        schema = Schema(slug="a-v1", version="1.0.0", definition=definition or True)
        return len({output_cutoff(document, schema) for document in documents})

    one, other = json_document({"a": "x y"}), json_document({"a": "x  y"})
    assert hashes(one, other) == 2
    assert hashes(one, other, **{"x-cutoff": "normal"}) == 1
    assert hashes(text_document("a"), text_document("a\n")) == 2


def test_a_misspelt_form_is_refused_where_it_stands() -> None:
    [fault] = definition_faults({"properties": {"a": {"x-cutoff": "loose"}}})
    assert (fault.pointer, fault.detail) == ("/properties/a/x-cutoff", "x-cutoff is bytes or normal.")
