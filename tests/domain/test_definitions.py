from __future__ import annotations

import copy
import dataclasses
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.definitions import STEPS_MAX, Definition, Step, parse_definition
from domain.errors import Fault, Invalid
from tests.domain.stories import SCHEMAS, parsed, seed_definition, with_step

CALL = {"id": "call", "type": "api-call", "service": "ai-service", "endpoint": "/x"}
AI = {"id": "ai", "type": "ai-call"}
COMPUTE = {"id": "compute", "type": "computation"}


def refused(raw: Any, services: tuple[str, ...] = ("ai-service",)) -> dict[str, str]:
    with pytest.raises(Invalid) as error:
        parsed(raw, services)
    assert error.value.problem_code == "invalid_definition"
    assert len({fault.pointer for fault in error.value.faults}) == len(error.value.faults)
    return {fault.pointer: fault.code for fault in error.value.faults}


def detail(raw: Any) -> str:
    with pytest.raises(Invalid) as error:
        parsed(raw)
    return " ".join(fault.detail for fault in error.value.faults)


def test_the_definition_of_the_seed_registers_unchanged() -> None:
    definition = parsed(seed_definition())
    assert definition.id == "wf-text-expansion"
    assert [(step.id, step.type, step.effect) for step in definition.steps] == [
        ("validate-input", "schema-validation", "pure"),
        ("analyze-style", "api-call", "call"),
        ("expand-text", "api-call", "call"),
        ("calculate-metrics", "computation", "pure"),
        ("create-output-blob", "state-update", "stage"),
    ]
    assert not definition.pure
    assert definition.volatile == ("/metadata/processing_time_ms",)
    assert definition.reads == frozenset()
    [output] = definition.outputs
    assert (output.slot, output.schema.slug, output.schema.version) == (
        "create-output-blob",
        "expanded-text-v1",
        "1.0.0",
    )
    assert output.content_type == "application/json"


def test_five_faults_of_a_definition_come_at_once_each_with_its_pointer() -> None:
    raw = seed_definition()
    raw["steps"][0]["schema_id"] = "schema-text-inptu-v1"
    raw["steps"][1]["service"] = "ai-servise"
    raw["steps"][2]["input_map"]["style"] = "$.data.style || "
    raw["steps"][3]["type"] = "computaton"
    raw["steps"][4]["id"] = "expand-text"
    assert refused(raw) == {
        "/steps/0/schema_id": "unknown_schema",
        "/steps/1/service": "unknown_service",
        "/steps/2/input_map/style": "invalid_expression",
        "/steps/3/type": "unknown_step_type",
        "/steps/4/id": "duplicate_id",
    }
    words = detail(raw)
    assert "did you mean ai-service?" in words
    assert "did you mean computation?" in words
    assert "at character 17" in words


@pytest.mark.parametrize(
    ("raw", "faults"),
    [
        ([], {"": "wrong_type", "/id": "missing_field", "/steps": "missing_field"}),
        ({"id": "Wf X", "steps": []}, {"/id": "invalid_id", "/steps": "missing_field"}),
        ({"id": "wf", "steps": {}}, {"/steps": "wrong_type"}),
        ({"id": "wf", "steps": [5]}, {
            "/steps/0": "wrong_type",
            "/steps/0/id": "missing_field",
            "/steps/0/type": "missing_field",
        }),
        ({**with_step(), "stpes": []}, {"/stpes": "unknown_field"}),
        ({"id": "wf", "steps": [CALL]}, {"/steps": "missing_field"}),
        (with_step({**CALL, "endpoint": "http://evil/x"}), {"/steps/0/endpoint": "invalid_id"}),
        (with_step({**CALL, "endpoint": "/../admin"}), {"/steps/0/endpoint": "invalid_id"}),
        (with_step({**CALL, "timeout": "2h", "retry": {"max_attempts": 0, "backof": 1}}), {
            "/steps/0/timeout": "invalid_value",
            "/steps/0/retry/max_attempts": "invalid_value",
            "/steps/0/retry/backof": "unknown_field",
        }),
        (with_step({**CALL, "output_map": {"a": "$.data", "b": "c", "d/e": "$.x[0]"}}), {
            "/steps/0/output_map/a": "invalid_value",
            "/steps/0/output_map/b": "invalid_value",
            "/steps/0/output_map/d~1e": "invalid_value",
        }),
        (with_step(AI), {"/steps/0": "invalid_value"}),
        (with_step({**AI, "skill": "/s", "prompt": "p"}), {"/steps/0": "invalid_value"}),
        (with_step({**AI, "skill": "/s", "max_tokens": 5}), {"/steps/0/max_tokens": "unknown_field"}),
        (with_step({**AI, "prompt": "p {{ $.a b }}", "max_tokens": 0, "temperature": "hot", "input_map": {}}), {
            "/steps/0/prompt": "invalid_expression",
            "/steps/0/max_tokens": "invalid_value",
            "/steps/0/temperature": "wrong_type",
            "/steps/0/input_map": "unknown_field",
        }),
        (with_step({**AI, "prompt": "p", "response_schema": {"$ref": "http://x/y"}}), {
            "/steps/0/response_schema/$ref": "remote_ref",
        }),
        (with_step(COMPUTE), {"/steps/0/operations": "missing_field"}),
        (with_step({**COMPUTE, "operations": [{"data": "1"}, "x", {"a-b": "1"}, {"c": None}, {"d": "len("}]}), {
            "/steps/0/operations/0/data": "invalid_value",
            "/steps/0/operations/1": "wrong_type",
            "/steps/0/operations/2/a-b": "invalid_id",
            "/steps/0/operations/3/c": "wrong_type",
            "/steps/0/operations/4/d": "invalid_expression",
        }),
        ({"id": "wf", "steps": [{"id": "o", "type": "state-update", "operation": "x", "schema": "text-v1"}]}, {
            "/steps/0/operation": "invalid_value",
            "/steps/0/data_map": "missing_field",
        }),
    ],
    ids=range(18),
)  # fmt: skip
def test_every_fault_has_a_pointer_and_a_code(raw: Any, faults: dict[str, str]) -> None:
    assert refused(raw) == faults


def test_an_undeclared_service_is_a_fault_for_ai_calls_too() -> None:
    assert refused(with_step({**AI, "skill": "/generate/outline"}), ()) == {"/steps/0/type": "unknown_service"}


def test_a_member_that_the_output_schema_requires_and_nobody_fills_in_is_a_fault() -> None:
    raw = seed_definition()
    del raw["steps"][4]["data_map"]["expanded"]
    assert refused(raw) == {"/steps/4/data_map/expanded": "missing_field"}


def test_a_title_that_changes_with_every_run_is_a_fault() -> None:
    raw = with_step()
    raw["steps"][0] |= {"title": "Took {{ $.execution_time }}", "metadata": {"t": "$.execution_time"}}
    assert refused(raw) == {"/steps/0/title": "invalid_value", "/steps/0/metadata": "invalid_value"}


def test_the_number_of_steps_is_bounded() -> None:
    many = [{**COMPUTE, "id": f"s{index}", "operations": {"a": "1"}} for index in range(STEPS_MAX)]
    assert "/steps" in refused(with_step(*many))
    assert parsed(with_step(*many[1:])).pure


@pytest.mark.parametrize(
    "hostile", [{"id": "x" * 300_000}, {"id": {"a": float("nan")}}, {"id": {1: 2}}, {"id": object()}]
)
def test_what_is_too_large_or_not_json_is_refused_at_once(hostile: Any) -> None:
    started = time.perf_counter()
    with pytest.raises(Invalid):
        parsed(hostile)
    assert time.perf_counter() - started < 1


def test_what_depends_on_the_time_a_run_took_is_volatile_however_it_got_there() -> None:
    raw = with_step({**COMPUTE, "operations": [{"seconds": "$.execution_time / 1000"}, {"shown": "string($.seconds)"}]})
    raw["steps"][1]["data_map"] = {"a/b": {"took": "$.shown"}, "rows": ["$.data", "$.seconds"], "kept": "$.data"}
    assert parsed(raw).volatile == ("/a~1b/took", "/rows/1")


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("$.title", {"title"}),
        ("$.inputs.map(i, i.title)", {"title"}),
        ("$.inputs.map(i, i.data.text)", set()),
        ("$.inputs.map(i, i)", {"title", "tags", "metadata"}),
        ("$.tags + $.metadata.keys()", {"tags", "metadata"}),
        ("$.blob.title", {"title"}),
        ("$.blob.version", set()),
        ("$.data.metadata.title", set()),
        ("len($)", {"title", "tags", "metadata"}),
    ],
)
def test_what_a_definition_reads_follows_from_its_expressions(source: str, reads: set[str]) -> None:
    assert parsed(with_step({**COMPUTE, "operations": {"x": source}})).reads == reads


def test_the_digest_names_what_runs() -> None:
    definition = parsed(seed_definition())
    reordered = parsed(dict(reversed(seed_definition().items())))
    assert reordered.digest == definition.digest
    assert re.fullmatch(r"[0-9a-f]{64}", definition.digest)
    changed = seed_definition()
    changed["steps"][4]["data_map"]["metadata"]["temperature"] = 0.8
    assert parsed(changed).digest != definition.digest


def test_the_digest_pins_the_versions_of_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parsed(with_step())
    monkeypatch.setitem(SCHEMAS, "text-v1", dataclasses.replace(SCHEMAS["text-v1"], version="1.1.0"))
    assert parsed(with_step()).digest != before.digest


def test_a_step_does_the_same_whatever_it_is_called() -> None:
    one = parsed(with_step({**CALL, "id": "a", "name": "A", "timeout": "5s"})).steps[0]
    other = parsed(with_step({**CALL, "id": "b", "retry": {"max_attempts": 2}})).steps[0]
    assert one.digest == other.digest
    assert (one.timeout_seconds, other.max_attempts) == (5.0, 2)
    assert parsed(with_step({**CALL, "endpoint": "/y"})).steps[0].digest != one.digest


def test_steps_and_outputs_are_found_by_name() -> None:
    definition = parsed(seed_definition())
    assert definition.step("expand-text").name == "expand-text"
    assert definition.output("create-output-blob").slot == "create-output-blob"
    with pytest.raises(KeyError):
        definition.step("none")
    with pytest.raises(KeyError):
        definition.output("none")


names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
templates = st.recursive(
    st.sampled_from(["text", "$.data.content", "$.title || 'none'", "$.execution_time", 5, 0.5, True, None]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
calls = st.builds(
    lambda body, fields, timeout: {**CALL, "input_map": body, "output_map": fields, "timeout": timeout},
    st.dictionaries(names, templates, max_size=3),
    st.dictionaries(names, st.sampled_from(["$.a", "$.b.c"]), max_size=2),
    st.sampled_from([None, 5, "500ms", "2m"]),
)
prompts = st.builds(
    lambda prompt, tokens, schema: {**AI, "prompt": prompt, "max_tokens": tokens, "response_schema": schema},
    st.sampled_from(["Say {{ $.data.content }}", "$.data.content", "plain"]),
    st.none() | st.integers(1, 99),
    st.none() | st.just({"type": "object"}),
)
computations = st.builds(
    lambda operations: {**COMPUTE, "operations": operations},
    st.dictionaries(
        st.from_regex(r"[a-z_]{3,8}_", fullmatch=True), st.sampled_from(["1 + 2", "$.title", "$.q"]), min_size=1
    ),
)  # fmt: skip
outputs = st.builds(
    lambda data, title: {
        "id": "o", "type": "state-update", "operation": "create-blob", "schema_id": "schema-text-v1",
        "data_map": data, "title": title, "tags": ["$.data.tag", "x"],
    },
    st.dictionaries(names, templates, max_size=3),
    st.none() | st.just("Of {{ $.title }}"),
)  # fmt: skip


@given(names, st.lists(calls | prompts | computations, max_size=4), outputs)
def test_a_definition_survives_being_stored(name: str, steps: list[dict[str, Any]], output: dict[str, Any]) -> None:
    numbered = [{**step, "id": f"s{index}"} for index, step in enumerate(steps)]
    raw = {"id": name, "steps": [*numbered, output]}
    before = copy.deepcopy(raw)
    definition = parsed(raw)
    assert raw == before
    stored = Definition.from_json(definition.to_json())
    assert stored == definition
    assert stored.digest == definition.digest == parsed(raw).digest
    assert (stored.volatile, stored.pure) == (definition.volatile, definition.pure)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["$.a", "$.", "api-call"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "type", "steps", "operations", "data_map", "input_map", "retry", "name", "x"]), inner,
        max_size=4,
    ),
    max_leaves=15,
))  # fmt: skip
def test_any_json_is_either_a_definition_or_refused_with_faults(raw: Any) -> None:
    faults = faults_of(raw)
    assert faults is None or len(faults) > 0


def faults_of(raw: Any) -> tuple[Fault, ...] | None:
    try:
        parsed(raw)
    except Invalid as error:
        return error.faults
    return None


def test_what_a_step_says_of_its_cache_counts_before_its_provider_and_asking_the_ai_is_reused_by_default() -> None:
    def step(**more: Any) -> Step:
        call = {"id": "a", "type": "api-call", "service": "pure", "endpoint": "/a", **more}
        keep = {"id": "k", "type": "state-update", "operation": "create-blob", "schema_id": "text-v1",
                "data_map": {"content": "$.a"}}  # fmt: skip
        raw = {"id": "wf", "steps": [call, keep]}
        services = ("pure", "other", "ai-service")
        return parse_definition(raw, services=services, pure=("pure",), schemas=SCHEMAS.get).steps[0]

    plain, ai = step(), step(service="ai-service")
    assert (plain.cache(), ai.cache(), plain.cache("inputs"), ai.cache("none")) == ("none", "inputs", "inputs", "none")
    cached = step(cache="inputs")
    assert (cached.cache(), cached.cache("none"), step(service="ai-service", cache="none").cache()) == (
        "inputs", "inputs", "none"
    )  # fmt: skip
    assert cached.digest == plain.digest
    for wrong, more in (("other", {"service": "other", "cache": "inputs"}), ("one of", {"cache": "always"})):
        with pytest.raises(Invalid) as caught:
            step(**more)
        assert [fault.pointer for fault in caught.value.faults] == ["/steps/0/cache"]
        assert wrong in caught.value.faults[0].detail
