from __future__ import annotations

import socket
import threading
import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Fault, Invalid
from domain.schemas import (
    Schema,
    canonical_slug,
    compile_validator,
    definition_faults,
    parse_schema,
    require_valid,
    strip_volatile,
)

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
PERSON = {
    "type": "object",
    "required": ["name", "age"],
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer"}},
}


def pointers(faults: list[Fault] | tuple[Fault, ...]) -> dict[str, str]:
    return {fault.pointer: fault.code for fault in faults}


def refused(raw: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as error:
        parse_schema(raw)
    assert error.value.problem_code == "invalid_schema"
    return pointers(error.value.faults)


@pytest.mark.parametrize(
    ("raw", "slug", "version"),
    [
        ({"slug": "text-input-v1"}, "text-input-v1", "1.0.0"),
        ({"name": "text-input", "version": "2.1.0"}, "text-input-v2", "2.1.0"),
        ({"name": "schema-text-input-v3"}, "text-input-v3", "3.0.0"),
        ({"schema_name": "text-input"}, "text-input-v1", "1.0.0"),
        ({"id": "a-v1", "version": "1.9.3-beta.1"}, "a-v1", "1.9.3-beta.1"),
    ],
)
def test_a_schema_is_named_by_its_slug_and_version(raw: dict[str, Any], slug: str, version: str) -> None:
    schema = parse_schema({**raw, "definition": PERSON})
    assert (schema.slug, schema.version) == (slug, version)
    assert not schema.strict_mode


def test_the_prefix_of_the_seeds_is_an_alias() -> None:
    assert canonical_slug("schema-text-input-v1") == "text-input-v1"
    assert canonical_slug("text-input-v1") == "text-input-v1"


def test_all_faults_of_a_registration_come_at_once() -> None:
    found = refused(
        {
            "slug": "Not a slug",
            "versoin": "1.0.0",
            "strict_mode": "yes",
            "examples": 5,
            "definition": {"type": "objekt", "properties": {"a": {"pattern": "(", "minLength": -1}}, "required": "a"},
        }
    )
    assert found == {
        "/slug": "invalid_id",
        "/versoin": "unknown_field",
        "/strict_mode": "wrong_type",
        "/examples": "wrong_type",
        "/definition/type": "invalid_schema",
        "/definition/properties/a/pattern": "invalid_schema",
        "/definition/properties/a/minLength": "invalid_schema",
        "/definition/required": "invalid_schema",
    }


def test_a_version_that_contradicts_the_slug_is_refused() -> None:
    assert refused({"slug": "a-v2", "version": "1.0.0", "definition": {}}) == {"/version": "invalid_value"}
    assert refused({"slug": "a", "version": "one", "definition": {}}) == {"/version": "invalid_id"}
    assert refused({"slug": "a"}) == {"/definition": "missing_field"}


def test_examples_are_validated_at_registration() -> None:
    raw = {"slug": "person-v1", "definition": PERSON, "examples": [{"name": "Ann", "age": 3}, {"name": "Ann-Sophie"}]}
    assert refused(raw) == {"/examples/1/age": "missing_field", "/examples/1/name": "schema_violation"}


@pytest.mark.parametrize("reference", ["http://127.0.0.1:{port}/s", "other.json", "file:///etc/passwd", "//host/s"])
def test_a_remote_reference_is_refused_without_a_packet(reference: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        hits: list[Any] = []

        def listen() -> None:
            try:
                hits.append(server.accept())
            except TimeoutError:
                return

        listener = threading.Thread(target=listen)
        listener.start()
        address = reference.format(port=server.getsockname()[1])
        definition = {"$schema": DRAFT_7, "properties": {"a": {"$ref": address}}}
        assert pointers(definition_faults(definition)) == {"/properties/a/$ref": "remote_ref"}
        # even a definition that was never checked goes nowhere
        with pytest.raises((ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError)):
            compile_validator({"$ref": address})
        listener.join()
        assert hits == []


@pytest.mark.parametrize("draft", [DRAFT_7, "https://json-schema.org/draft/2020-12/schema"])
def test_local_references_are_followed(draft: str) -> None:
    definition = {
        "$schema": draft,
        "definitions": {"word": {"type": "string", "minLength": 2}},
        "items": {"$ref": "#/definitions/word"},
    }
    assert definition_faults(definition) == []
    assert pointers(compile_validator(definition).faults(["ab", "c"])) == {"/1": "schema_violation"}


def test_a_reference_to_nothing_is_refused() -> None:
    assert pointers(definition_faults({"not": {"$ref": "#/$defs/x"}})) == {"/not/$ref": "invalid_schema"}


def doubling(steps: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {"a0": {"type": "string"}}
    for step in range(1, steps):
        before = {"$ref": f"#/$defs/a{step - 1}"}
        definitions[f"a{step}"] = {"anyOf": [before, before]}
    return {"$defs": definitions, "$ref": f"#/$defs/a{steps - 1}"}


@pytest.mark.parametrize(
    "definition",
    [
        doubling(40),
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]},
        {"patternProperties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}},
        {"items": {"$ref": "#"}, "contains": {"$ref": "#"}},
        {"pattern": "(?=lookahead)"},
        {"pattern": "(a{999}){999}"},
        {"allOf": [{"pattern": f"(a{{999}}){{{index}}}"} for index in range(100, 1100)]},
        {"patternProperties": {"^(?!x)": {}}},
        {"$dynamicRef": "#x"},
        {"properties": {"a": {"$id": "http://example.com/other"}}},
        {"$schema": "http://example.com/own"},
        {"properties": {str(index): {} for index in range(3000)}},
        {"description": "x" * 200_000},
        [],
        "object",
    ],
    ids=lambda definition: str(definition)[:40],
)
def test_a_definition_that_could_cost_too_much_is_refused_within_a_second(definition: Any) -> None:
    started = time.perf_counter()
    assert definition_faults(definition)
    assert time.perf_counter() - started < 1


def test_nesting_is_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"items": deep}
    assert [fault.code for fault in definition_faults(deep)] == ["too_deep"]


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"$ref": "#"}},
                {"type": "object", "additionalProperties": {"$ref": "#"}},
            ]
        },
        {"$defs": {"n": {"$anchor": "node", "properties": {"next": {"$ref": "#node"}}}}, "$ref": "#node"},
        True,
    ],
    ids=lambda definition: str(definition)[:40],
)
def test_recursion_that_costs_no_more_than_the_value_is_allowed(definition: Any) -> None:
    assert definition_faults(definition) == []
    value: Any = "x"
    for _ in range(50):
        value = [value]
    started = time.perf_counter()
    compile_validator(definition).faults(value)
    assert time.perf_counter() - started < 1


def test_every_violation_has_a_pointer_and_shows_no_content() -> None:
    value = {"name": "a very secret name", "x/y": 1}
    closed = {**PERSON, "additionalProperties": False}
    faults = compile_validator(closed).faults(value)
    assert pointers(faults) == {
        "/name": "schema_violation",
        "/age": "missing_field",
        "/x~1y": "unknown_field",
    }
    assert not any("secret" in fault.detail for fault in faults)
    assert compile_validator(closed).is_valid({"name": "Ann", "age": 3})


def test_formats_are_checked() -> None:
    assert not compile_validator({"format": "email"}).is_valid("nobody")
    assert compile_validator({"format": "date-time"}).is_valid("2026-10-01T12:00:00Z")


def test_a_pattern_takes_time_linear_in_the_text() -> None:
    started = time.perf_counter()
    assert not compile_validator({"pattern": "^(a+)+$"}).is_valid("a" * 100_000 + "b")
    assert time.perf_counter() - started < 1


def test_a_validator_is_compiled_once_for_equal_definitions() -> None:
    assert compile_validator({"type": "object", "required": []}) is compile_validator(
        {"required": [], "type": "object"}
    )


def test_require_valid_raises_with_the_pointer_below_its_place() -> None:
    schema = parse_schema({"slug": "person-v1", "definition": PERSON})
    require_valid(schema, {"name": "Ann", "age": 3})
    with pytest.raises(Invalid) as error:
        require_valid(schema, {"name": "Ann"}, pointer="/data", code="invalid_output")
    assert (error.value.problem_code, pointers(error.value.faults)) == (
        "invalid_output",
        {"/data/age": "missing_field"},
    )


def test_strict_mode_closes_objects_and_required_fields_are_added() -> None:
    raw = {"slug": "p-v1", "definition": {"properties": {"a": {"properties": {"b": {}}}}}}
    extra = {"a": {"b": 1, "c": 2}, "d": 3}
    assert parse_schema(raw).validator.faults(extra) == []
    strict = parse_schema({**raw, "strict_mode": True, "required_fields": ["e"]})
    assert pointers(strict.validator.faults(extra)) == {
        "/a/c": "unknown_field",
        "/d": "unknown_field",
        "/e": "missing_field",
    }


VOLATILE = {
    "properties": {
        "took_ms": {"x-volatile": True},
        "steps": {"items": {"$ref": "#/$defs/step"}},
        "meta": {"allOf": [{"properties": {"at": {"x-volatile": True}}}]},
    },
    "$defs": {"step": {"properties": {"at": {"type": "string", "x-volatile": True}}}},
    "additionalProperties": {"properties": {"at": {"x-volatile": True}}},
}


def test_volatile_fields_are_left_out_wherever_they_are() -> None:
    value = {
        "text": "x",
        "took_ms": 5,
        "steps": [{"name": "a", "at": "now"}, {"name": "b"}],
        "meta": {"at": "now", "kept": 1},
        "other": {"at": "now", "kept": 2},
    }
    assert strip_volatile(VOLATILE, value) == {
        "text": "x",
        "steps": [{"name": "a"}, {"name": "b"}],
        "meta": {"kept": 1},
        "other": {"kept": 2},
    }
    assert value["took_ms"] == 5


def test_volatile_pointers_of_a_definition_are_left_out_too() -> None:
    value = {"metadata": {"processing_time_ms": 5, "model": "x"}, "rows": [1, 2]}
    also = ["/metadata/processing_time_ms", "/rows/0", "/not/there"]
    assert strip_volatile({}, value, also=also) == {"metadata": {"model": "x"}, "rows": [2]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "at"]), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_stripping_twice_is_stripping_once_and_without_marks_nothing_changes(value: Any) -> None:
    assert strip_volatile({"properties": {"a": {"type": "object"}}}, value) == value
    once = strip_volatile(VOLATILE, value)
    assert strip_volatile(VOLATILE, once) == once


definitions = st.sampled_from([True, {}, PERSON, VOLATILE, {"type": "string", "$schema": DRAFT_7}])


@given(
    st.builds(
        lambda name, version, definition, strict, description, deprecated: {
            "name": name,
            "version": version,
            "definition": definition,
            "strict_mode": strict,
            "description": description,
            "deprecated": deprecated,
        },
        st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True),
        st.sampled_from(["1.0.0", "2.3.4", "0.1.0-rc1"]),
        definitions,
        st.booleans(),
        st.text(max_size=20),
        st.booleans(),
    )
)
def test_a_schema_survives_being_stored_and_being_registered_again(raw: dict[str, Any]) -> None:
    schema = parse_schema(raw)
    assert Schema.from_json(schema.to_json()) == schema
    again = parse_schema(schema.to_json())
    assert again == schema
    assert again.digest == schema.digest


@pytest.mark.parametrize(
    ("definition", "pointer"),
    [
        ({"properties": {"a": {"type": "array", "x-merge-key": ""}}}, "/properties/a/x-merge-key"),
        ({"properties": {"a": {"type": "array", "x-merge-key": ["id"]}}}, "/properties/a/x-merge-key"),
        ({"properties": {"a": {"type": "object", "x-merge-key": "id"}}}, "/properties/a/x-merge-key"),
        ({"x-merge-key": "id"}, "/x-merge-key"),
        ({"x-on-conflict": "newest"}, "/x-on-conflict"),
        ({"x-on-conflict": None}, "/x-on-conflict"),
        ({"x-on-conflict": ["merge"]}, "/x-on-conflict"),
        ({"properties": {"a": {"x-on-conflict": "merge"}}}, "/properties/a/x-on-conflict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_misspelled_rule_for_merging_is_refused(definition: Any, pointer: str) -> None:
    assert pointers(definition_faults(definition)) == {pointer: "invalid_schema"}


def test_rules_for_merging_may_be_stated() -> None:
    items = {"type": "array", "x-merge-key": "id", "items": {"type": "object"}}
    assert definition_faults({"x-on-conflict": "merge", "properties": {"a": items, "b": {**items}}}) == []
    assert definition_faults({"x-merge-key": "id", "type": ["array", "null"]}) == []
