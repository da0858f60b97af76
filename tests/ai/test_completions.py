from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ai.answers import checked_schema, parsed
from ai.completions import Completion, Completions, Prompt, Usage
from domain.errors import Invalid, ProviderFailed, Unavailable
from tests.ai.upstream import answering, completion

QUESTION = Prompt(user="Say something.", tokens_max=20)
NAMES = {"type": "array", "items": {"type": "string"}, "maxItems": 2}


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Completions]:
    completions = Completions(url=url, model="ours", key="secret-key")
    try:
        yield completions
    finally:
        await completions.close()


async def test_an_answer_carries_its_text_usage_and_the_model_that_gave_it() -> None:
    with answering(completion("Hello.", finish="length")) as (url, asked):
        async with asking(url) as completions:
            answer = await completions.complete(QUESTION)
    assert answer == Completion("Hello.", cut_off=True, usage=Usage("theirs-1", 5, 7))
    assert (asked[0]["temperature"], asked[0]["max_tokens"], asked[0]["model"]) == (0.0, 20, "ours")
    assert "response_format" not in asked[0]


async def test_a_schema_is_sent_along() -> None:
    with answering(completion("[]")) as (url, asked):
        async with asking(url) as completions:
            await completions.complete(Prompt(user="Names.", tokens_max=20, system="You name.", schema=NAMES))
    assert asked[0]["response_format"]["json_schema"]["schema"] == NAMES
    assert [message["role"] for message in asked[0]["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [(429, {"Retry-After": "17"}, 17), (429, {}, 2), (500, {}, 2), (503, {"Retry-After": "soon"}, 2)],
)
async def test_what_may_pass_is_unavailable_and_asked_once(
    status: int, headers: Mapping[str, str], seconds: int
) -> None:
    with answering({"error": {"message": "busy"}}, status=status, headers=headers) as (url, asked):
        async with asking(url) as completions:
            with pytest.raises(Unavailable) as caught:
                await completions.complete(QUESTION)
    assert caught.value.problem_code == "service_unavailable"
    assert caught.value.retryable
    assert caught.value.members["retry_after"] == seconds
    assert len(asked) == 1


async def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused, and nobody else can take it
        async with asking(f"http://127.0.0.1:{taken.getsockname()[1]}/v1") as completions:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await completions.complete(QUESTION)
            with pytest.raises(Unavailable, match="cannot be reached"):
                await completions.check()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_refusal_is_final_and_never_quotes_a_key(status: int) -> None:
    body = {"error": {"message": f"no: {'x' * 1000} secret-key"}}
    with answering(body, status=status) as (url, _):
        async with asking(url) as completions:
            with pytest.raises(ProviderFailed) as caught:
                await completions.complete(QUESTION)
    assert caught.value.problem_code == "service_rejected"
    assert not caught.value.retryable
    assert str(status) in caught.value.detail
    assert "secret-key" not in caught.value.detail


@pytest.mark.parametrize(
    "body", [completion(""), completion(" \n"), completion(None), {"choices": []}, {}, [], "hm", None]
)
async def test_an_answer_without_text_is_invalid_output(body: Any) -> None:
    with answering(body) as (url, _):
        async with asking(url) as completions:
            with pytest.raises(ProviderFailed) as caught:
                await completions.complete(QUESTION)
    assert caught.value.problem_code == "invalid_output"


async def test_an_answer_that_is_not_json_is_invalid_output() -> None:
    with answering(b"<html>") as (url, _):
        async with asking(url) as completions:
            with pytest.raises(ProviderFailed) as caught:
                await completions.complete(QUESTION)
    assert caught.value.problem_code == "invalid_output"


async def test_the_first_failure_of_several_stops_the_rest() -> None:
    with answering({}, status=400) as (url, asked):
        async with asking(url) as completions:
            before = asyncio.all_tasks()
            with pytest.raises(ProviderFailed):
                await completions.complete_all([QUESTION] * 40)
            assert asyncio.all_tasks() <= before
    assert len(asked) < 40


def test_usage_adds_up_and_names_the_model_that_was_asked() -> None:
    assert Usage() + Usage("m", 1, 2) + Usage("m", 3, 4) == Usage("m", 4, 6)
    assert Usage("m", 1, 2) + Usage() == Usage("m", 1, 2)


def answer(text: str, *, cut_off: bool = False) -> Completion:
    return Completion(text, cut_off=cut_off, usage=Usage())


def test_an_answer_of_its_schema_is_parsed_even_from_a_code_block() -> None:
    validator = checked_schema(NAMES, pointer="/response_schema")
    assert parsed(answer('["a"]'), validator) == ["a"]
    assert parsed(answer('```json\n["a"]\n```'), validator) == ["a"]


@pytest.mark.parametrize(
    ("text", "why"), [("[", "not JSON"), ("[1]", "not of its schema"), ('["a","b","c"]', "not of its schema")]
)
def test_an_answer_of_another_shape_is_invalid_output(text: str, why: str) -> None:
    with pytest.raises(ProviderFailed, match=why) as caught:
        parsed(answer(text), checked_schema(NAMES, pointer="/response_schema"))
    assert caught.value.problem_code == "invalid_output"


def test_a_cut_off_answer_says_so() -> None:
    with pytest.raises(ProviderFailed, match="cut off at max_tokens"):
        parsed(answer('["a', cut_off=True), checked_schema(NAMES, pointer="/response_schema"))


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"type": "strin"}, "invalid_schema"),
        ({"$ref": "http://127.0.0.1:9/x"}, "remote_ref"),
        ({"$ref": "#/nowhere"}, "invalid_schema"),
        ({"pattern": "("}, "invalid_schema"),
        (nested(100_000), "invalid_schema"),
        (nested(30), "invalid_schema"),
        ({"enum": ["x" * 20_000]}, "invalid_schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_a_fault_at_its_field(schema: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        checked_schema(schema, pointer="/response_schema")
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [("/response_schema", code)]
