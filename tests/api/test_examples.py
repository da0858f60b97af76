"""The examples of answers in the OpenAPI document have the shape of real answers."""

import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest_asyncio

from api.openapi import examples
from domain.keys import SCOPES
from storage.contents import Contents
from storage.database import Database
from tests.api.answers import Answers, gather
from tests.api.schedule import schedule_of
from tests.conftest import Person, client_of

FILE = Path(__file__).parents[2] / "api" / "examples.json"
WRITE = "STUDIO_WRITE_EXAMPLES"
"""Set it, and the file is written anew instead of compared."""
SECRET_EXAMPLE = "mst_live_shown-only-here"
TEXT_MAX = 90
NOT_JSON = {"contents_get", "platform_metrics"}


@pytest_asyncio.fixture
async def answers(
    app: Any,
    client: httpx2.AsyncClient,
    user: Person,
    make_user: Callable[..., Awaitable[Person]],
    database: Database,
    contents: Contents,
) -> Answers:
    """Real answers by operation."""
    chief = await make_user(SCOPES)
    async with client_of(app, chief.headers) as as_chief:
        return await gather(client, as_chief, user, database, schedule_of(database, contents))


def shape(value: Any) -> Any:
    """What must stay the same: member names and kinds; of a list the first entry; of free-form maps nothing."""
    if isinstance(value, Mapping):
        free = {"definition", "config", "properties", "usage", "metadata", "settings", "examples"}
        return {name: None if name in free else shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return None


def cut(value: Any) -> Any:
    """A short form of the same shape, without anything secret."""
    if isinstance(value, dict):
        return {name: SECRET_EXAMPLE if name == "api_key" else cut(item) for name, item in value.items()}
    if isinstance(value, list):
        return [cut(item) for item in value[:1]]
    if isinstance(value, str):
        return value[:TEXT_MAX]
    return value


async def test_the_examples_of_answers_have_the_shape_of_answers(answers: Answers) -> None:
    if os.environ.get(WRITE):
        text = json.dumps({name: cut(answer) for name, answer in answers.items()}, indent=1, sort_keys=True)
        FILE.write_text(f"{text}\n")
        return
    assert {name: shape(example) for name, example in examples().items()} == {
        name: shape(cut(answer)) for name, answer in answers.items()
    }


def test_every_operation_that_answers_json_shows_an_answer(app: Any) -> None:
    without = []
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            (status, success), *_ = [item for item in operation["responses"].items() if item[0].startswith("2")]
            content = success.get("content", {})
            if (
                status != "204"
                and operation["operationId"] not in NOT_JSON
                and not any("example" in media for media in content.values())
            ):
                without.append(f"{method} {path}")
    assert without == []
