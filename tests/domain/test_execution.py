"""Carrying out a run is a pure function of its pinned inputs, its recorded steps and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.definitions import Definition, parse_definition
from domain.documents import Document
from domain.errors import Invalid
from domain.execution import TOKENS_MAX, carry_out, context_of, declined, total_usage, usage_of
from domain.schemas import Schema
from domain.works import RunInput, RunOutput, RunWork, StepRecord
from tests.domain.values import json_document, text_document

START = datetime(2026, 1, 1, tzinfo=UTC)
OUT = Schema(slug="out-v1", version="1.0.0", definition={"type": "object", "required": ["text"]})
KEEP = {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": "out-v1",
        "data_map": {"text": "$.text"}}  # fmt: skip
ASK = {"id": "ask", "type": "api-call", "service": "test", "endpoint": "/ask", "input_map": {"text": "$.data.text"},
       "output_map": {"text": "$.text"}}  # fmt: skip


def shout(expression: str = "$.data.text + '!'") -> dict[str, Any]:
    return {"id": "shout", "type": "computation", "operations": [{"text": expression}]}


def defined(*steps: dict[str, Any]) -> Definition:
    raw = {"id": "wf", "steps": [*steps, KEEP]}
    return parse_definition(raw, services={"test"}, schemas={"out-v1": OUT}.get)


def work(
    definition: Definition, *inputs: Document, current: Document | None = None, anchor: str = "blob", **more: Any
) -> RunWork:
    pinned = [
        RunInput(blob_id=UUID(int=n + 10), version=n + 1, document=document, position=n)
        for n, document in enumerate(inputs)
    ]
    slot = RunOutput(slot="keep", blob_id=UUID(int=2), version=0 if current is None else 1, deleted=False,
                     current=current, machine=current, schema=OUT, on_conflict="keep_human")  # fmt: skip
    values: dict[str, Any] = {
        "user_id": UUID(int=1), "run_id": UUID(int=3), "label": "Run", "provider_id": "one", "anchor_kind": anchor,
        "anchor_title": "The Storm", "definition": definition, "trigger_patterns": (), "reads": frozenset(),
        "settings": {}, "inputs": tuple(pinned), "outputs": (slot,), "schemas": {"out-v1": OUT}, "started_at": START,
    }  # fmt: skip
    return RunWork(**(values | more))


def made(run: RunWork, records: Sequence[StepRecord] = ()) -> Document:
    [output] = carry_out(run, now=START, records=records).outputs
    return output.document


def test_a_pure_run_is_carried_out_whole() -> None:
    settlement = carry_out(work(defined(shout()), json_document({"text": "a"}, title="T")), now=START)
    [output] = settlement.outputs
    assert (output.document.body, output.document.title) == ({"text": "a!"}, "T")
    assert (settlement.run_id, settlement.usage["model"], settlement.usage["tokens"]) == (UUID(int=3), None, 0)


def test_recorded_steps_are_taken_as_recorded() -> None:
    run = work(defined(ASK, shout("$.text + '!'")), json_document({"text": "a"}))
    asked = StepRecord(step_id="ask", entries={"text": "answer"}, usage={"model": "m", "total_tokens": 5})
    assert made(run, [asked]).body == {"text": "answer!"}
    # A pure step that was recorded is not evaluated again either.
    assert made(run, [asked, StepRecord(step_id="shout", entries={"text": "said"})]).body == {"text": "said"}
    assert carry_out(run, now=START, records=[asked]).usage["total_tokens"] == 5


def test_what_took_so_long_is_in_the_context_and_in_the_usage() -> None:
    run = work(defined(shout()), json_document({"text": "a"}))
    assert context_of(run, [], now=START + timedelta(seconds=1.5))["execution_time"] == 1500
    assert carry_out(run, now=START + timedelta(seconds=2)).usage["duration_ms"] == 2000
    # Clocks of two machines differ: never negative.
    assert context_of(run, [], now=START - timedelta(seconds=9))["execution_time"] == 0


def test_a_join_reads_its_inputs_in_order_and_is_called_like_its_bucket() -> None:
    definition = defined(shout("join($.inputs.map(one, one.data.text), '-')"))
    run = work(definition, json_document({"text": "b"}), json_document({"text": "a"}), anchor="bucket")
    first, second = run.inputs
    shuffled = replace(run, inputs=(second, first))
    for each in (run, shuffled):
        assert (made(each).body, made(each).title) == ({"text": "b-a"}, "The Storm")


def test_an_output_of_nothing_new_settles_without_effect() -> None:
    run = work(defined(shout()), json_document({"text": "a"}), current=json_document({"text": "a!"}))
    assert carry_out(run, now=START).outputs == ()


@pytest.mark.parametrize(
    ("patterns", "text", "wanted"),
    [
        ((), "anything", True),
        (("chapter",), "a chapter", True),
        (("chapter",), "a poem", False),
        (("poem", "chap.er"), "a chapter", True),
        (("^Chapter [0-9]+",), "Chapter 1", True),
    ],
)  # fmt: skip
def test_patterns_are_looked_for_in_what_people_read(patterns: tuple[str, ...], text: str, *, wanted: bool) -> None:
    for document in (text_document(text), json_document({"text": text}), json_document({"content": text})):
        run = work(defined(shout()), document, trigger_patterns=patterns)
        assert (declined(run) is None) == wanted
        if not wanted:
            assert carry_out(run, now=START).outputs == ()
            assert carry_out(run, now=START).usage == {"skipped": "no pattern matches the content"}


def test_an_input_that_is_too_large_is_declined() -> None:
    run = work(defined(shout()), json_document({"text": "abc"}), max_input_size=14)
    assert declined(run) is None
    assert declined(replace(run, max_input_size=13)) == "the input is larger than 13 bytes"


def test_an_output_that_its_schema_refuses_fails_the_run() -> None:
    with pytest.raises(Invalid) as caught:
        carry_out(work(defined({**shout("null"), "operations": [{"other": "1"}]}), json_document({})), now=START)
    assert caught.value.problem_code in {"invalid_output", "expression_failed"}


def test_an_expression_that_fails_fails_the_run() -> None:
    with pytest.raises(Invalid) as caught:
        carry_out(work(defined(shout("$.data.text + 1")), json_document({"text": "a"})), now=START)
    assert caught.value.problem_code == "expression_failed"


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"usage": {"model": "m", "total_tokens": 3, "prompt_tokens": 1, "completion_tokens": 2}},
         {"model": "m", "total_tokens": 3, "prompt_tokens": 1, "completion_tokens": 2}),
        ({"usage": {"total_tokens": "3", "prompt_tokens": -1, "completion_tokens": 1.0}}, {}),
        ({"usage": {"total_tokens": True, "prompt_tokens": TOKENS_MAX + 1, "more": []}}, {}),
        ({"usage": {"model": "a\0b"}}, {"model": "ab"}),
        ({"usage": {"model": "x" * 300}}, {"model": "x" * 200}),
        ({"usage": None}, {}), ({}, {}), ([], {}), ("text", {}), (None, {}),
    ],
)  # fmt: skip
def test_of_a_services_usage_only_counts_and_a_name_are_taken(answer: Any, usage: dict[str, Any]) -> None:
    assert usage_of(answer) == usage


def test_usage_is_summed_and_names_the_models_that_were_asked() -> None:
    def record(**usage: Any) -> StepRecord:
        return StepRecord(step_id="s", entries={}, usage=usage)

    records = [record(model="a", total_tokens=2, prompt_tokens=1), record(model="computed"), record(model="b"),
               record(model="a", total_tokens=3)]  # fmt: skip
    usage = total_usage(records)
    assert (usage["model"], usage["tokens"], usage["total_tokens"], usage["prompt_tokens"]) == ("a, b", 5, 5, 1)
    assert total_usage([record(model="computed")])["model"] == "computed"
    assert total_usage([])["model"] is None
