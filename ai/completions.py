"""The model: any OpenAI-compatible API, asked once per call (retrying is the caller's, who can wait durably)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from domain.errors import ProviderFailed, Unavailable

MODEL_TIMEOUT_SECONDS = 120.0  # a first inference under contention was measured at 18 s
CONNECT_TIMEOUT_SECONDS = 5.0
READY_TIMEOUT_SECONDS = 3.0
CALLS_AT_ONCE = 4  # of one request: its paragraphs are asked for side by side
RETRY_AFTER_SECONDS = 2
QUOTED_CHARS_MAX = 300  # of a model API's refusal
# A tiny model at temperature 0 loops; this discourages it and is part of the OpenAI API.
FREQUENCY_PENALTY = 0.4
SEED = 1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Usage:
    """What was asked of which model; ``computed`` and no tokens where none was asked."""

    model: str = "computed"
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Both together; the model is the one that was asked."""
        return Usage(
            other.model if other.completion_tokens or other.prompt_tokens else self.model,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question to the model; ``schema`` (JSON Schema) constrains the answer."""

    user: str
    tokens_max: int
    system: str | None = None
    temperature: float = 0.0
    frequency_penalty: float = FREQUENCY_PENALTY
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The model's answer as it came; ``cut_off`` when it reached ``tokens_max``."""

    text: str
    cut_off: bool
    usage: Usage


class Completions:
    """Asks one model. Close it when done.

    Raises Unavailable (``service_unavailable``, with ``retry_after`` when the API names it) for what may pass,
    ProviderFailed (``service_rejected``, ``invalid_output``) for what will not.
    """

    def __init__(self, *, url: str, model: str, key: str | None) -> None:
        self.model = model
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key or "none",  # the client insists on one; a local server ignores it
            max_retries=0,
            timeout=openai.Timeout(MODEL_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def check(self) -> None:
        """Raise Unavailable or ProviderFailed unless the API answers; asks nothing of the model."""
        try:
            await self._client.models.list(timeout=READY_TIMEOUT_SECONDS)
        except openai.APIError as error:
            _refuse(error)

    async def complete(self, prompt: Prompt) -> Completion:
        """The model's answer to ``prompt``, never blank."""
        try:
            answer = await self._client.chat.completions.create(
                model=self.model,
                messages=_messages(prompt),
                max_tokens=prompt.tokens_max,
                temperature=prompt.temperature,
                frequency_penalty=prompt.frequency_penalty,
                seed=SEED,
                response_format=_response_format(prompt.schema),
            )
        except openai.APIError as error:
            _refuse(error)
        except ValueError as error:
            raise ProviderFailed("The model API answered no JSON.", code="invalid_output") from error
        return _completion(answer, asked=self.model)

    async def complete_all(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """The answers to all prompts, in order, a few at a time; the first failure stops the rest."""
        limit = asyncio.Semaphore(CALLS_AT_ONCE)

        async def ask(prompt: Prompt) -> Completion:
            async with limit:
                return await self.complete(prompt)

        return await _together([ask(prompt) for prompt in prompts])


async def _together(calls: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:  # nothing is left running when one fails or the caller goes away
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _messages(prompt: Prompt) -> list[ChatCompletionMessageParam]:
    user: list[ChatCompletionMessageParam] = [{"role": "user", "content": prompt.user}]
    return user if prompt.system is None else [{"role": "system", "content": prompt.system}, *user]


def _response_format(schema: Mapping[str, Any] | None) -> Any:
    if schema is None:
        return openai.omit
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}


def _completion(answer: ChatCompletion, *, asked: str) -> Completion:
    try:  # the client types what a server answers, but does not check it
        choice = answer.choices[0]
        text = choice.message.content or ""
        cut_off = choice.finish_reason == "length"
        counted = answer.usage
        usage = Usage(
            answer.model or asked,
            counted.prompt_tokens if counted else 0,
            counted.completion_tokens if counted else 0,
        )
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ProviderFailed("The model API answered no chat completion.", code="invalid_output") from error
    if not text.strip():
        raise ProviderFailed("The model answered with nothing.", code="invalid_output")
    return Completion(text, cut_off=cut_off, usage=usage)


def _refuse(error: openai.APIError) -> NoReturn:
    """Translate a client error; a key is never quoted."""
    if isinstance(error, openai.APITimeoutError):
        raise _unavailable("The model did not answer in time.") from error
    if isinstance(error, openai.APIConnectionError):
        raise _unavailable("The model API cannot be reached.") from error
    if not isinstance(error, openai.APIStatusError):
        raise ProviderFailed("The model API answered no JSON.", code="invalid_output") from error
    status = error.status_code
    if status in {408, 409, 429} or status >= 500:  # noqa: PLR2004 - HTTP's own classes
        raise _unavailable(
            f"The model API answered {status}.", retry_after=error.response.headers.get("retry-after")
        ) from error
    said = "" if status in {401, 403} else f" It says: {error.message[:QUOTED_CHARS_MAX]}"
    raise ProviderFailed(f"The model API refused the call with {status}.{said}", code="service_rejected") from error


def _unavailable(detail: str, *, retry_after: str | None = None) -> Unavailable:
    seconds = int(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
    return Unavailable(detail, code="service_unavailable", members={"retry_after": seconds or RETRY_AFTER_SECONDS})
