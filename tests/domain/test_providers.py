from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.providers import (
    Collect,
    Debounce,
    Placement,
    Provider,
    canonical_provider,
    canonical_workflow,
    parse_provider,
)
from domain.yaml_text import parse_yaml
from tests.domain.stories import DEFINITIONS, SCHEMAS, SEED

PURE = {"id": "counter", "workflow_id": "wf-pure"}


def provider(raw: Any) -> Provider:
    return parse_provider(raw, workflows=lambda slug: DEFINITIONS.get(canonical_workflow(slug)), schemas=SCHEMAS.get)


def refused(raw: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as error:
        provider(raw)
    assert error.value.problem_code == "invalid_request"
    return {fault.pointer: fault.code for fault in error.value.faults}


def test_the_registration_of_seed_003_is_read_as_it_is() -> None:
    found = provider(parse_yaml((SEED / "text-expansion.yaml").read_text()))
    assert (found.id, found.name, found.workflow_id) == (
        "text-expansion",
        "Text Expansion Processor",
        "wf-text-expansion",
    )
    assert found.input_schemas == ("text-input-v1",)
    assert found.events == ("onCreate", "onEdit")
    assert (found.origin, found.anchor, found.execution, found.supersede) == ("any", "blob", "workflow", "finish")
    assert [(output.slot, output.schema.slug) for output in found.outputs] == [
        ("create-output-blob", "expanded-text-v1")
    ]
    assert found.definition_digest == DEFINITIONS["wf-text-expansion"].digest


def test_the_registration_of_seed_000_is_read_as_it_is() -> None:
    found = provider(
        {
            "id": "content-expander",
            "name": "Content Expander",
            "description": "Expands brief text into detailed content",
            "events": ["onCreate", "onEdit"],
            "workflow": "expand-content-workflow",
        }
    )
    assert (found.id, found.workflow_id, found.origin) == ("content-expander", "wf-text-expansion", "person")
    assert found.input_schemas == ()
    assert canonical_provider("content-expander") == "text-expansion"
    assert canonical_provider("other") == "other"


@pytest.mark.parametrize(
    ("fields", "schemas", "events"),
    [
        ({"input_schema_id": "schema-text-v1"}, ("text-v1",), ("onCreate", "onEdit")),
        ({"input_schemas": ["text-v1", "text-input-v1"]}, ("text-v1", "text-input-v1"), ("onCreate", "onEdit")),
        ({"input_schemas": [{"schema_name": "text", "version": "1.2.0"}]}, ("text-v1",), ("onCreate", "onEdit")),
        ({"input_schema": {"schema_id": "text-v1", "min_version": "1.0"}}, ("text-v1",), ("onCreate", "onEdit")),
        ({"event_patterns": ["blob.created.text-v1"]}, ("text-v1",), ("onCreate",)),
        ({"subscribe_events": ["studio.blob.updated.text-v1"]}, ("text-v1",), ("onEdit",)),
        ({"input_events": ["blob.deleted.*"]}, (), ("onDelete",)),
        ({"trigger_events": ["onDelete", "onCreate"]}, (), ("onCreate", "onDelete")),
        ({"events": "onEdit"}, (), ("onEdit",)),
        ({}, (), ("onCreate", "onEdit")),
    ],
)  # fmt: skip
def test_every_spelling_of_the_seeds_says_who_reacts(
    fields: dict[str, Any], schemas: tuple[str, ...], events: tuple[str, ...]
) -> None:
    found = provider({**PURE, **fields})
    assert (found.input_schemas, found.events) == (schemas, events)
    assert found.origin == ("any" if schemas else "person")


def test_without_an_input_schema_a_provider_reacts_to_every_blob_of_a_person() -> None:
    found = provider({**PURE, "supported_types": ["text/*", "application/json; charset=utf-8"]})
    assert found.reacts_to(schema_id="anything-v1", content_type="text/markdown; charset=utf-8", by_person=True)
    assert found.reacts_to(schema_id="text-v1", content_type="application/json", by_person=True)
    assert not found.reacts_to(schema_id="text-v1", content_type="image/png", by_person=True)
    assert not found.reacts_to(schema_id="text-v1", content_type="text/plain", by_person=False)
    anywhere = provider({**PURE, "origin": "any"})
    assert anywhere.reacts_to(schema_id="text-v1", content_type="text/plain", by_person=False)


def test_naming_a_schema_is_the_consent_to_derived_blobs_of_it() -> None:
    found = provider({**PURE, "input_schema_id": "text-v1"})
    assert found.reacts_to(schema_id="text-v1", content_type="text/plain", by_person=False)
    assert not found.reacts_to(schema_id="text-input-v1", content_type="text/plain", by_person=True)
    careful = provider({**PURE, "input_schema_id": "text-v1", "origin": "person"})
    assert not careful.reacts_to(schema_id="text-v1", content_type="text/plain", by_person=False)


def test_trigger_patterns_look_at_the_content() -> None:
    found = provider({**PURE, "trigger_patterns": ["(?i)chapter \\d+", "^ship"]})
    assert found.triggered_by("In CHAPTER 12")
    assert not found.triggered_by("In a chapter")
    assert provider(PURE).triggered_by("anything")


COLLECT = {"collect": {"bucket_type": "book", "schema_id": "text-v1"}}


def test_a_provider_that_collects_hangs_on_buckets() -> None:
    found = provider({**PURE, **COLLECT, "anchor": "bucket"})
    assert (found.anchor, found.origin) == ("bucket", "any")
    assert found.collect == Collect("book", "text-v1", "position")
    assert found.input_schemas == ("text-v1",)
    assert not found.reacts_to(schema_id="text-v1", content_type="text/plain", by_person=True)


def test_what_is_pure_runs_inline_unless_told_otherwise() -> None:
    assert (provider(PURE).execution, provider(PURE).supersede) == ("inline", "cancel")
    assert provider({**PURE, "execution": "workflow", "supersede": "finish"}).execution == "workflow"
    raw = {"id": "x", "workflow_id": "wf-text-expansion", "execution": "inline"}
    assert refused(raw) == {"/execution": "invalid_value"}


def test_what_counts_as_a_change_follows_from_the_definition_or_must_cover_it() -> None:
    titled = {"id": "x", "workflow_id": "wf-titled"}
    assert provider(titled).reads == ("title",)
    assert provider({**titled, "reads": ["tags", "title"]}).reads == ("tags", "title")
    assert refused({**titled, "reads": ["tags"]}) == {"/reads": "invalid_value"}
    assert refused({**PURE, "reads": ["titel"]}) == {"/reads/0": "invalid_value"}


def test_scheduling_fields_are_read_with_their_units() -> None:
    found = provider(
        {
            **PURE,
            "version": "1.2.0",
            "priority": 1,
            "concurrency": 4,
            "timeout": "30s",
            "retry_policy": {"max_attempts": 3, "backoff": "exponential"},
            "debounce": {"quiet": "500ms", "max_wait": "1m"},
            "on_conflict": "wait",
            "on_delete": "delete",
            "max_input_size": 1000,
            "active": False,
        }
    )
    assert (found.priority, found.max_concurrency, found.timeout_seconds, found.max_attempts) == (1, 4, 30.0, 3)
    assert found.debounce == Debounce(0.5, 60.0)
    assert (found.on_conflict, found.on_delete, found.max_input_size) == ("wait", "delete", 1000)
    assert not found.activate
    assert provider({**PURE, "debounce": {"quiet": 2}}).debounce == Debounce(2.0, 20.0)


def test_settings_satisfy_their_schema() -> None:
    schema = {"type": "object", "properties": {"words": {"type": "integer"}}, "additionalProperties": False}
    assert provider({**PURE, "settings_schema": schema, "settings": {"words": 5}}).settings == {"words": 5}
    assert provider({**PURE, "config": {"anything": 1}}).settings == {"anything": 1}
    assert refused({**PURE, "settings_schema": schema, "config": {"words": "x", "word": 1}}) == {
        "/config/words": "schema_violation",
        "/config/word": "unknown_field",
    }
    assert refused({**PURE, "settings_schema": {"$ref": "http://x/y"}}) == {"/settings_schema/$ref": "remote_ref"}


def test_all_faults_of_a_registration_come_at_once_below_its_block() -> None:
    raw = {
        "processor": {
            "id": "Text Expansion",
            "input_schema_id": "nothing-v1",
            "event_patterns": ["blob.created.gone-v1", "blob.exploded"],
            "workflow_id": "wf-nothing",
            "prioritty": 1,
            "timeout": "soon",
            "trigger_patterns": ["(?=x)"],
            "supported_types": ["not a type"],
            "debounce": {"quiet": "2h", "max_wait": "1s", "x": 1},
            "retry": {"max_attempts": 1000},
            "anchor": "bucket",
            "on_conflict": "ask",
        }
    }
    assert refused(raw) == {
        "/processor/id": "invalid_id",
        "/processor/input_schema_id": "unknown_schema",
        "/processor/event_patterns/0": "unknown_schema",
        "/processor/event_patterns/1": "invalid_value",
        "/processor/workflow_id": "unknown_workflow",
        "/processor/prioritty": "unknown_field",
        "/processor/timeout": "wrong_type",
        "/processor/trigger_patterns/0": "invalid_value",
        "/processor/supported_types/0": "invalid_value",
        "/processor/debounce/quiet": "invalid_value",
        "/processor/debounce/x": "unknown_field",
        "/processor/retry/max_attempts": "invalid_value",
        "/processor/collect": "missing_field",
        "/processor/on_conflict": "invalid_value",
    }


@pytest.mark.parametrize(
    ("raw", "faults"),
    [
        ([], {"": "wrong_type", "/id": "missing_field", "/workflow_id": "missing_field"}),
        ({**PURE, "workflow": "wf-pure"}, {"/workflow": "invalid_value"}),
        ({**PURE, **COLLECT, "anchor": "blob"}, {"/anchor": "invalid_value"}),
        ({**PURE, **COLLECT, "input_schema_id": "text-v1"}, {"/collect": "invalid_value"}),
        ({**PURE, "collect": {"bucket_type": "Book!", "order": "title"}}, {
            "/collect/bucket_type": "invalid_id",
            "/collect/schema_id": "missing_field",
            "/collect/order": "invalid_value",
        }),
        ({**PURE, "output_schema_id": "expanded-text-v1"}, {"/output_schema_id": "invalid_value"}),
        ({**PURE, "debounce": {"quiet": "5s", "max_wait": "1s"}}, {"/debounce/max_wait": "invalid_value"}),
        ({**PURE, "priority": 9, "max_concurrency": 0}, {
            "/priority": "invalid_value", "/max_concurrency": "invalid_value",
        }),
        ({**PURE, "events": ["onSave"]}, {"/events/0": "invalid_value"}),
        ({**PURE, "id": "x" * 64}, {"/id": "invalid_id"}),
    ],
    ids=range(10),
)  # fmt: skip
def test_every_fault_of_a_registration_has_a_pointer(raw: Any, faults: dict[str, str]) -> None:
    assert refused(raw) == faults


@pytest.mark.parametrize("raw", [{"id": "x" * 200_000}, {"id": float("inf")}])
def test_what_is_too_large_or_not_json_is_refused(raw: Any) -> None:
    with pytest.raises(Invalid):
        provider(raw)


fields = st.fixed_dictionaries(
    {"id": st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True), "workflow_id": st.sampled_from(sorted(DEFINITIONS))},
    optional={
        "name": st.text(max_size=9),
        "input_schemas": st.lists(st.sampled_from(sorted(SCHEMAS)), max_size=2),
        "events": st.lists(st.sampled_from(["onCreate", "blob.updated.text-v1", "blob.derived"]), max_size=3),
        "supported_types": st.lists(st.sampled_from(["text/*", "application/json", "*/*"]), max_size=2),
        "trigger_patterns": st.lists(st.sampled_from(["a+", "^b"]), max_size=2),
        "origin": st.sampled_from(["person", "any"]),
        "timeout": st.sampled_from(["1s", 5, "2m"]),
        "debounce": st.sampled_from([{"quiet": "1s"}, {"quiet": 0, "max_wait": 9}]),
        "settings": st.dictionaries(st.text(max_size=3), st.integers(0, 9) | st.lists(st.text(max_size=2)), max_size=2),
        "settings_schema": st.just({"type": "object"}),
        "on_delete": st.sampled_from(["keep", "delete"]),
    },
)


@given(fields | fields.map(lambda raw: {"processor": raw}))
def test_a_provider_survives_being_stored(raw: dict[str, Any]) -> None:
    before = copy.deepcopy(raw)
    found = provider(raw)
    assert raw == before
    stored = Provider.from_json(found.to_json())
    assert stored == found
    assert stored.digest == found.digest


@pytest.mark.parametrize(
    ("fields", "placement"),
    [
        ({}, Placement("hybrid", None)),
        ({"storage": {"strategy": "inline"}}, Placement("inline", None)),
        ({"storage": {"strategy": "hybrid", "threshold": 0}}, Placement("hybrid", 0)),
        ({"storage_strategy": "hybrid", "storage_threshold_bytes": 4096}, Placement("hybrid", 4096)),
        ({"storage_strategy": "external"}, Placement("url", None)),
    ],
    ids=["default", "inline", "threshold", "seed-004", "seed-004-external"],
)
def test_where_outputs_are_kept_is_said_in_either_spelling(fields: dict[str, Any], placement: Placement) -> None:
    found = provider({**PURE, **fields})
    assert found.storage == placement
    assert Provider.from_json(found.to_json()) == found
    earlier = {name: value for name, value in found.to_json().items() if name != "storage"}
    assert Provider.from_json(earlier).storage == Placement("hybrid", None)


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"storage": {"strategy": "cloud"}}, "/storage/strategy", "invalid_value"),
        ({"storage": {"strategy": "url", "threshold": 5}}, "/storage/threshold", "invalid_value"),
        ({"storage": {"strategy": "hybrid", "threshold": -1}}, "/storage/threshold", "invalid_value"),
        ({"storage": {"backend": "redis"}}, "/storage/backend", "unknown_field"),
        ({"storage": {"strategy": "url"}, "storage_strategy": "url"}, "/storage_strategy", "unknown_field"),
        ({"storage_threshold_bytes": "1 MB"}, "/storage_threshold_bytes", "wrong_type"),
    ],
    ids=["strategy", "needless", "negative", "backend", "twice", "type"],
)
def test_where_outputs_are_kept_has_to_make_sense(fields: dict[str, Any], pointer: str, code: str) -> None:
    assert refused({**PURE, **fields}) == {pointer: code}
