"""The service over the real local model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import orjson
import pytest
from starlette.types import Message

from ai.app import Options, create_app
from ai.model import MODEL_NAME
from ai.wire import TEXT_CHARS_MAX
from tests.ai.conftest import client_of
from tests.ai.upstream import answering, completion

OUTLINE = "Chapter 1: Introduction to AI\n\n- What is AI?\n- The first machines"


async def post(client: httpx2.AsyncClient, path: str, body: Any) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def without_duration(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer but for the one member that is allowed to differ."""
    usage = {name: value for name, value in answer["usage"].items() if name != "duration_ms"}
    return {**answer, "usage": usage}


def assert_counted(usage: dict[str, Any]) -> None:
    assert usage["model"] == MODEL_NAME
    assert usage["prompt_tokens"] > 10
    assert usage["completion_tokens"] > 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["duration_ms"] > 0


async def test_the_seed_s_style_analysis_is_computed(client: httpx2.AsyncClient) -> None:
    answer = await post(client, "/analyze/style", {"text": "The ship sailed into the storm."})
    assert answer["style"] == {
        "tone": "sombre",
        "complexity": 0.5,
        "readability_score": 100.0,
        "detected_style": "creative",
    }
    assert without_duration(answer)["usage"] == {
        "model": "computed",
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }


async def test_an_expansion_is_whole_paragraphs(client: httpx2.AsyncClient) -> None:
    body = {"original": "The ship sailed into the storm.", "style": None, "context": {"book_id": "b", "chapter_num": 1}}
    answer = await post(client, "/generate/expand", body)
    assert_counted(answer["usage"])
    paragraphs = answer["expanded"].split("\n\n")
    assert len(paragraphs) == 2
    assert all(paragraph[-1] in '.!?"' and len(paragraph) > 40 for paragraph in paragraphs)


async def test_the_same_question_has_the_same_answer_whatever_else_is_asked(client: httpx2.AsyncClient) -> None:
    body = {"prompt": "Tell me about the sea.", "max_tokens": 24}
    first = await post(client, "/complete", body)
    other = asyncio.create_task(post(client, "/complete", {"prompt": "Count to nine.", "max_tokens": 6}))
    again = await post(client, "/complete", body)
    await other
    assert without_duration(again) == without_duration(first)


async def questions_of(original: str, context: dict[str, Any] | None = None) -> list[str]:
    with answering(completion("Some words.")) as (url, asked):
        async with client_of(Options(model_url=url, model_name="m")) as client:
            await post(client, "/generate/expand", {"original": original, "context": context})
    return sorted(call["messages"][-1]["content"] for call in asked)


async def test_a_changed_point_is_the_only_new_question() -> None:
    before = await questions_of(OUTLINE)
    after = await questions_of(OUTLINE.replace("first", "last"))
    assert before == [
        "Write one paragraph of three sentences about this: The first machines (Introduction to AI)",
        "Write one paragraph of three sentences about this: What is AI? (Introduction to AI)",
    ]
    assert set(before) - set(after) == {before[0]}


async def test_the_context_names_the_subject_before_the_text_does() -> None:
    asked = await questions_of(OUTLINE, {"title": "Chapter 2: Machines", "chapter_num": 2, "unknown": None})
    assert [question.split(": ")[1] for question in asked] == ["The first machines", "What is AI? (Machines)"]


async def test_an_outline_depends_on_its_title_and_is_of_its_schema(client: httpx2.AsyncClient) -> None:
    titles = ("Chapter 1: Introduction to AI", "Chapter 2: The Voyage of the Grey Gull")
    answers = [await post(client, "/generate/outline", {"title": title}) for title in titles]
    for answer, title in zip(answers, titles, strict=True):
        assert_counted(answer["usage"])
        assert len(answer["sections"]) == len(set(answer["sections"])) == 3
        assert title.split(": ")[1] not in answer["sections"]
        assert answer["outline"] == "\n".join(f"- {section}" for section in answer["sections"])
        assert len(answer["outline"]) >= 10
    assert answers[0]["sections"] != answers[1]["sections"]


async def test_a_title_that_the_model_only_repeats_is_the_one_heading() -> None:
    said = ["The Storm and the Calm", "1. The storm and the calm", "The Storm and the Calm.", "the storm and the calm"]
    with answering(completion(json.dumps({"sections": said}))) as (url, _):
        async with client_of(Options(model_url=url, model_name="m")) as client:
            answer = await post(client, "/generate/outline", {"title": "Chapter 1: The Storm and the Calm"})
    assert answer["sections"] == ["The Storm and the Calm"]


async def test_headings_lose_their_numbers_repeats_and_the_chapter_s_title() -> None:
    said = ["The Sea", "1. The old harbour", "AI-2: The OLD harbour", "The storm,", "The far island", "Never used"]
    with answering(completion(json.dumps({"sections": said[:5]}))) as (url, asked):
        async with client_of(Options(model_url=url, model_name="m")) as client:
            answer = await post(client, "/generate/outline", {"title": "Chapter 4: The Sea"})
    assert answer["sections"] == ["The old harbour", "The storm", "The far island"]
    assert len(asked) == 1


async def test_a_second_question_is_asked_when_headings_are_too_few() -> None:
    with answering(completion(json.dumps({"sections": ["The storm"] * 5}))) as (url, asked):
        async with client_of(Options(model_url=url, model_name="m")) as client:
            answer = await post(client, "/generate/outline", {"title": "The Sea"})
    assert answer["sections"] == ["The storm"]
    assert len(asked) == 2
    assert answer["usage"]["total_tokens"] == 24


async def test_a_summary_is_shorter_than_its_text(client: httpx2.AsyncClient) -> None:
    text = (
        "Machines learn from examples. They look for patterns in pictures, words and numbers, and use them to"
        " guess what comes next. People check what they learned, because a machine can be sure and wrong."
    )
    answer = await post(client, "/generate/summarize", {"text": text})
    assert_counted(answer["usage"])
    assert 10 < len(answer["summary"]) < len(text)
    assert answer["summary"][-1] in ".!?"


async def test_another_style_keeps_the_paragraphs_and_leaves_lists_alone(client: httpx2.AsyncClient) -> None:
    text = "# Storm\n\nso we took the old boat out at dawn, and the waves were really big.\n\n- rope\n- anchor\n"
    answer = await post(client, "/edit/style", {"text": text, "style": "formal"})
    assert_counted(answer["usage"])
    heading, prose, items = answer["text"].split("\n\n")
    assert (heading, items) == ("# Storm", "- rope\n- anchor\n")
    assert prose != text.split("\n\n")[1]
    metrics = answer["style_metrics"]
    assert (metrics["parts_rewritten"], metrics["parts_kept"]) == (1, 2)
    assert metrics["before"] != metrics["after"]


async def test_grammar_is_corrected_without_a_model(client: httpx2.AsyncClient) -> None:
    answer = await post(client, "/edit/grammar", {"text": "we saw the the ship. It left."})
    assert answer["text"] == "We saw the ship. It left."
    assert answer["corrections"] == [
        {"offset": 0, "before": "w", "after": "W", "rule": "sentence_capital"},
        {"offset": 7, "before": "the the", "after": "the", "rule": "doubled_word"},
    ]
    assert answer["usage"]["model"] == "computed"


async def test_a_question_of_one_s_own_is_answered_within_its_schema(client: httpx2.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "warm": {"type": "boolean"}},
        "required": ["colour", "warm"],
        "additionalProperties": False,
    }
    body = {"system": None, "prompt": "Describe the colour red.", "response_schema": schema, "max_tokens": 60}
    answer = await post(client, "/complete", body)
    assert answer["value"]["colour"] in {"red", "green"}
    assert answer["value"]["warm"] in {True, False}
    assert orjson.loads(answer["text"]) == answer["value"]
    plain = await post(client, "/complete", {"prompt": "Say hello.", "max_tokens": 8})
    assert plain["value"] is None
    assert plain["text"]


@pytest.mark.parametrize(
    ("path", "body", "faults"),
    [
        ("/generate/expand", {}, {("/original", "missing_field")}),
        ("/generate/expand", {"original": " \n "}, {("/original", "invalid_value")}),
        ("/generate/expand", {"original": 5, "stile": "x"}, {("/original", "wrong_type"), ("/stile", "unknown_field")}),
        ("/generate/expand", {"original": "x", "style": "a\nb"}, {("/style", "invalid_value")}),
        ("/generate/expand", {"original": "x", "context": []}, {("/context", "wrong_type")}),
        ("/generate/outline", {"title": "x" * 301}, {("/title", "content_too_large")}),
        ("/edit/grammar", {"text": "x" * (TEXT_CHARS_MAX + 1)}, {("/text", "content_too_large")}),
        ("/complete", {"prompt": "x", "max_tokens": 0}, {("/max_tokens", "invalid_value")}),
        ("/complete", {"prompt": "x", "temperature": "hot"}, {("/temperature", "wrong_type")}),
        ("/complete", {"prompt": "x", "response_schema": {"type": "x"}}, {("/response_schema", "invalid_schema")}),
        ("/analyze/style", ["x"], {("", "wrong_type")}),
    ],
)
async def test_a_wrong_field_is_named(
    client: httpx2.AsyncClient, path: str, body: Any, faults: set[tuple[str, str]]
) -> None:
    response = await client.post(path, json=body)
    problem = response.json()
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert {(error["pointer"], error["code"]) for error in problem["errors"]} == faults
    assert all(error["detail"] for error in problem["errors"])
    page = (await client.get(problem["type"])).json()
    assert page["code"] == problem["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (("POST", "/edit/grammar", b"{", "application/json"), 400, "unparsable_body"),
        (("POST", "/edit/grammar", b"\xff\xfe", "application/json"), 400, "unparsable_body"),
        (("POST", "/edit/grammar", b"[" * 100_000, "application/json"), 400, "unparsable_body"),
        (("POST", "/edit/grammar", b'{"text":"\\ud800"}', "application/json"), 422, "invalid_request"),
        (("POST", "/edit/grammar", b"text=x", "application/x-www-form-urlencoded"), 415, "unsupported_media_type"),
        (("POST", "/edit/nothing", b"{}", "application/json"), 404, "not_found"),
        (("GET", "/edit/grammar", b"", "application/json"), 405, "method_not_allowed"),
    ],
)
async def test_what_is_no_request_of_ours_is_a_problem(
    client: httpx2.AsyncClient, asked: tuple[str, str, bytes, str], status: int, code: str
) -> None:
    method, path, content, media_type = asked
    response = await client.request(method, path, content=content, headers={"Content-Type": media_type})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_the_token_is_required_but_for_probes(client: httpx2.AsyncClient) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer no"}):
        response = await client.post("/edit/grammar", json={"text": "x"}, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert (await client.get(path, headers={"Authorization": ""})).status_code == 200


async def test_ready_means_that_the_model_answers(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/readyz")).json() == {"status": "ready", "model": MODEL_NAME}
    async with client_of(Options(model_url="http://127.0.0.1:9/v1", model_name="m")) as alone:
        assert (await alone.get("/healthz")).status_code == 200
        response = await alone.get("/readyz")
        assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
        assert response.headers["retry-after"] == "2"


async def test_a_wrong_model_key_is_a_refusal(model_url: str) -> None:
    async with client_of(Options(model_url=model_url, model_name="m", model_key="wrong")) as client:
        response = await client.post("/complete", json={"prompt": "x"})
    assert (response.status_code, response.json()["code"]) == (502, "service_rejected")
    assert not response.json()["retryable"]


async def test_a_busy_model_s_wait_is_passed_on() -> None:
    with answering({}, status=429, headers={"Retry-After": "17"}) as (url, _):
        async with client_of(Options(model_url=url, model_name="m")) as client:
            response = await client.post("/generate/summarize", json={"text": "x"})
    assert (response.status_code, response.json()["retryable"]) == (503, True)
    assert response.headers["retry-after"] == "17"


@pytest.mark.parametrize("path", ["/generate/expand", "/generate/outline", "/generate/summarize", "/complete"])
async def test_an_answer_of_nothing_usable_is_never_passed_on(path: str) -> None:
    bodies = {
        "/generate/expand": {"original": "x"},
        "/generate/outline": {"title": "x"},
        "/generate/summarize": {"text": "x"},
        "/complete": {"prompt": "x"},
    }
    with answering(completion("```json\n" if path == "/generate/outline" else "\x00 \n")) as (url, _):
        async with client_of(Options(model_url=url, model_name="m")) as client:
            response = await client.post(path, json=bodies[path])
    assert (response.status_code, response.json()["code"]) == (502, "invalid_output")


async def test_a_rewriting_that_loses_the_text_is_not_used() -> None:
    text = "The first paragraph has quite a few words.\n\nThe second one also has a few."
    with answering(completion("Gone.")) as (url, _):
        async with client_of(Options(model_url=url, model_name="m")) as client:
            answer = await post(client, "/edit/style", {"text": text})
    assert answer["text"] == text
    assert (answer["style_metrics"]["parts_rewritten"], answer["style_metrics"]["parts_kept"]) == (0, 2)
    assert answer["usage"]["total_tokens"] == 24


async def test_a_long_text_is_rewritten_in_bounded_calls_and_the_rest_kept() -> None:
    sentence = "This is a sentence of a certain length, and it says nothing that matters to anyone. "
    text = "\n\n".join([sentence.strip(), (sentence * 60).strip()])
    with answering(completion(sentence * 6)) as (url, asked):
        async with client_of(Options(model_url=url, model_name="m")) as client:
            answer = await post(client, "/edit/style", {"text": text})
    assert len(asked) == 8
    assert answer["style_metrics"]["parts_kept"] > 0
    assert len(answer["text"].split("\n\n")) == 2


async def test_the_model_stops_when_nobody_waits_any_more() -> None:
    asked, dropped = asyncio.Event(), asyncio.Event()

    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        while await reader.read(1024):
            pass
        dropped.set()
        writer.close()

    body = b'{"prompt":"x"}'
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        await asked.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        del message

    async with await asyncio.start_server(never_answers, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        app = create_app(Options(model_url=url, model_name="m"))
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/complete",
            "raw_path": b"/complete",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        async with asyncio.timeout(20), app.router.lifespan_context(app):
            await app(scope, receive, send)
            await dropped.wait()


async def test_a_bug_of_ours_is_a_problem_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> None:
        raise RuntimeError(f"secret in {text}")

    monkeypatch.setattr("ai.grammar.correct", broken)
    app = create_app(Options(model_url="http://127.0.0.1:9/v1", model_name="m"))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://ai") as client:
        response = await client.post("/edit/grammar", json={"text": "x"})
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text


async def test_the_interface_is_described(client: httpx2.AsyncClient) -> None:
    description = (await client.get("/openapi.json")).json()
    assert set(description["paths"]) == {
        "/analyze/style",
        "/generate/expand",
        "/generate/outline",
        "/generate/summarize",
        "/edit/style",
        "/edit/grammar",
        "/complete",
        "/healthz",
        "/readyz",
    }
    responses = description["paths"]["/generate/expand"]["post"]["responses"]
    assert {"200", "401", "422", "429", "502", "503"} <= set(responses)
