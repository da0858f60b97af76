from __future__ import annotations

from typing import Any

import pytest

from domain.definitions import Definition
from domain.documents import Document
from domain.errors import Invalid
from domain.steps import INPUTS_MAX, InputBlob, absorb, initial_context, request, run_pure, stage
from tests.domain.stories import SCHEMAS, parsed, seed_definition, with_step

CONTENT = "The ship sailed into the storm."
ANSWERS: dict[str, dict[str, Any]] = {
    "/analyze/style": {
        "style": {"tone": "calm", "complexity": 5.0, "readability_score": 80.0, "detected_style": "creative"},
        "usage": {"total_tokens": 0},
    },
    "/generate/expand": {
        "expanded": "The mighty vessel sailed on and on into the storm.",
        "usage": {"total_tokens": 9},
    },
}


def blob(document: dict[str, Any], **fields: Any) -> InputBlob:
    return InputBlob(**{"blob_id": "b1", "version": 3, "document": Document.parse(document), **fields})


def seed_blob(**data: Any) -> InputBlob:
    return blob({"data": {"content": CONTENT, **data}, "content_type": "application/json", "title": "Storm"})


def run(definition: Definition, context: dict[str, Any], answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every step in order; the document of the last one."""
    staged: dict[str, Any] = {}
    for step in definition.steps:
        schema = SCHEMAS[step.schema.slug] if step.schema else None
        if step.effect == "pure":
            context = {**context, **run_pure(step, context, schema)}
        elif step.effect == "call":
            context = {**context, **absorb(step, answers[request(step, context).endpoint], context)}
        else:
            assert schema is not None
            staged = stage(step, {**context, "execution_time": 1234}, schema)
    return staged


def test_the_definition_of_the_seed_runs_unchanged() -> None:
    staged = run(parsed(seed_definition()), initial_context([seed_blob(extra="kept")], {}), ANSWERS)
    assert staged == {
        "content_type": "application/json",
        "data": {
            "original": CONTENT,
            "expanded": "The mighty vessel sailed on and on into the storm.",
            "expansion_ratio": 50 / 31,
            "style_analysis": ANSWERS["/analyze/style"]["style"],
            "metadata": {"model": "gpt-4", "temperature": 0.7, "processing_time_ms": 1234},
        },
        "title": "Storm",
        "tags": [],
        "metadata": {},
    }


def test_the_computation_of_the_seed_counts_words() -> None:
    definition = parsed(seed_definition())
    context = {"data": {"content": "one two three four"}, "expanded_text": "a b c d e f"}
    assert run_pure(definition.step("calculate-metrics"), context) == {
        "expansion_ratio": 11 / 18,
        "word_count_original": 4,
        "word_count_expanded": 6,
    }


@pytest.mark.parametrize(("given", "style"), [({"style": "formal"}, "formal"), ({}, "creative")])
def test_a_call_carries_what_its_input_map_says(given: dict[str, str], style: str) -> None:
    definition = parsed(seed_definition())
    context = initial_context([seed_blob(**given)], {})
    context |= absorb(definition.step("analyze-style"), ANSWERS["/analyze/style"], context)
    call = request(definition.step("expand-text"), context)
    assert (call.service, call.endpoint, call.step_id) == ("ai-service", "/generate/expand", "expand-text")
    assert call.body == {"original": CONTENT, "style": style}  # no metadata: a null key is dropped


def test_equal_requests_of_equal_steps_have_one_key() -> None:
    definition = parsed(seed_definition())
    step = definition.step("analyze-style")
    one, same = (request(step, initial_context([seed_blob(n=n)], {})) for n in (1, 2))
    other = request(step, {"data": {"content": "something else"}})
    assert one.key == same.key != other.key
    assert request(definition.step("expand-text"), {"data": {"content": CONTENT}}).key != one.key


def test_an_input_that_violates_the_schema_ends_the_run_with_every_fault() -> None:
    step = parsed(seed_definition()).step("validate-input")
    with pytest.raises(Invalid) as error:
        run_pure(step, {"data": {"content": "short", "style": "odd"}}, SCHEMAS["text-input-v1"])
    assert error.value.problem_code == "schema_violation"
    assert {fault.pointer for fault in error.value.faults} == {"/content", "/style"}


def test_a_text_blob_is_seen_with_its_metadata_and_satisfies_the_seed() -> None:
    context = initial_context([blob({"content": CONTENT, "metadata": {"type": "chapter"}})], {})
    assert context["data"] == {"content": CONTENT, "metadata": {"type": "chapter"}}
    assert run(parsed(seed_definition()), context, ANSWERS)["data"]["original"] == CONTENT


def test_what_is_not_declared_as_read_is_not_shown() -> None:
    document = {"data": 1, "content_type": "application/json", "title": "T", "tags": ["a"], "metadata": {"m": 1}}
    assert initial_context([blob(document)], {"k": 2}, reads=("title",)) == {
        "data": 1,
        "title": "T",
        "settings": {"k": 2},
        "blob": {"id": "b1", "version": 3, "title": "T"},
    }
    assert "title" not in initial_context([blob(document)], {}, reads=())


def test_a_collection_is_ordered_by_position_then_id() -> None:
    def member(blob_id: str, position: int | None) -> InputBlob:
        return blob({"content": blob_id}, blob_id=blob_id, position=position)

    members = [member("d", None), member("c", 2), member("b", 2), member("a", 10)]
    inputs = initial_context(members, {}, collection=True, reads=("title",))["inputs"]
    assert [(item["blob_id"], item["position"]) for item in inputs] == [("b", 2), ("c", 2), ("a", 10), ("d", None)]
    assert inputs[0] == {
        "data": {"content": "b", "metadata": {}},
        "position": 2,
        "blob_id": "b",
        "version": 3,
        "title": None,
    }
    with pytest.raises(Invalid):
        initial_context([member("x", 1)] * (INPUTS_MAX + 1), {}, collection=True)


def test_operations_run_in_order_and_see_each_other() -> None:
    step = parsed(
        with_step({"id": "c", "type": "computation", "operations": {"a": "2", "b": "$.a * 3", "c": 4}})
    ).steps[0]
    assert run_pure(step, {}) == {"a": 2, "b": 6, "c": 4}


def test_an_expression_that_fails_names_its_step_and_operation() -> None:
    step = parsed(seed_definition()).step("calculate-metrics")
    with pytest.raises(Invalid, match="calculate-metrics") as error:
        run_pure(step, {"data": {"content": "x"}})
    assert [(fault.pointer, fault.code) for fault in error.value.faults] == [
        ("/steps/calculate-metrics/operations/expansion_ratio", "expression_failed")
    ]


def call_step(**fields: Any) -> Any:
    return parsed(
        with_step({"id": "a-b", "type": "api-call", "service": "ai-service", "endpoint": "/x", **fields})
    ).steps[0]


def test_answers_are_read_into_the_context() -> None:
    step = call_step(output_map={"style": "$.found.style", "usage.tokens": "$.tokens", "none": "$.gone"})
    context = {"found": {"kept": 1}, "gone": "before"}
    assert absorb(step, {"style": "formal", "usage": {"tokens": 5}}, context) == {
        "found": {"kept": 1, "style": "formal"},
        "tokens": 5,
        "gone": None,
    }
    assert context == {"found": {"kept": 1}, "gone": "before"}


def test_without_an_output_map_the_answer_is_under_its_step() -> None:
    gained = absorb(call_step(), {"x": 1}, {"steps": {"before": 2}})
    assert gained == {"steps": {"before": 2, "a-b": {"x": 1}}}


def test_fields_of_an_answer_that_is_no_map_are_refused() -> None:
    with pytest.raises(Invalid) as error:
        absorb(call_step(output_map={"a": "$.a"}), ["x"], {})
    assert error.value.problem_code == "invalid_output"


def test_a_prompt_is_filled_in_and_sent_with_its_parameters() -> None:
    step = parsed(
        with_step(
            {
                "id": "ask",
                "type": "ai-call",
                "prompt": "Summarize {{ $.data.content }} in {{ $.settings.words || 10 }} words",
                "system": "You are terse.",
                "response_schema": {"type": "object"},
                "max_tokens": 50,
                "temperature": 0,
                "output_map": {"text": "$.text"},
            }
        )
    ).steps[0]
    call = request(step, initial_context([seed_blob()], {}))
    assert (call.service, call.endpoint) == ("ai-service", "/complete")
    assert call.body == {
        "prompt": f"Summarize {CONTENT} in 10 words",
        "system": "You are terse.",
        "response_schema": {"type": "object"},
        "max_tokens": 50,
        "temperature": 0,
    }


def staged(context: dict[str, Any], **fields: Any) -> dict[str, Any]:
    raw = with_step()
    raw["steps"][0] |= fields
    return stage(parsed(raw).steps[0], context, SCHEMAS["text-v1"])


def test_title_tags_and_metadata_are_templates() -> None:
    document = staged(
        {"title": "Storm", "data": {"tag": "sea", "n": 3}},
        title="Of {{ $.title }} {{ $.data.n }}",
        tags=["$.data.tag", "fixed"],
        metadata={"n": "$.data.n", "gone": "$.nothing"},
        data_map="$.data",
    )
    assert document == {
        "content_type": "application/json",
        "data": {"tag": "sea", "n": 3},
        "title": "Of Storm 3",
        "tags": ["sea", "fixed"],
        "metadata": {"n": 3},
    }


def test_an_output_without_a_title_takes_that_of_its_input() -> None:
    assert staged({"title": "Storm"})["title"] == "Storm"
    assert staged({})["title"] == ""


def test_an_output_that_violates_its_schema_is_refused_with_pointers_into_the_document() -> None:
    step = parsed(seed_definition()).step("create-output-blob")
    context = {"data": {"content": CONTENT}, "expanded_text": 5, "execution_time": 1}
    with pytest.raises(Invalid) as error:
        stage(step, context, SCHEMAS["expanded-text-v1"])
    assert error.value.problem_code == "invalid_output"
    assert {fault.pointer for fault in error.value.faults} == {"/data/expanded", "/data/expansion_ratio"}


@pytest.mark.parametrize("fields", [{"title": "$.long"}, {"tags": "$.long"}, {"metadata": ["$.long"]}])
def test_an_output_that_is_no_document_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as error:
        staged({"long": "x" * 10_000}, **fields)
    assert error.value.problem_code == "invalid_output"
    assert error.value.faults
