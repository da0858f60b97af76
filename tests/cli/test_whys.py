"""Why, on a terminal: sentences, a tree down to people, what would change it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from typer.main import get_command

from api.openapi import examples
from cli.main import app
from cli.problems import COMMANDS, HINTS, command_of
from cli.watching import _WAYS
from cli.whys import _explained, _of_blob, _of_derivation, _shown
from domain.runs import State
from domain.why_actions import changes
from tests.cli.conftest import Studio
from tests.cli.test_blobs import created
from tests.domain.test_whys import EVERY_STATE

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


def drawn(value: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(value)
    return captured.get()


async def test_why_of_what_a_person_wrote(studio: Studio) -> None:
    made = await created(studio, "--content", "one", "--title", "Storm")
    told = (await studio("blob", "why", made["id"])).json
    assert (told["because"]["operation"], told["now"]["state"]) == ("create", "source")
    shown = (await studio("blob", "why", made["id"], "--version", "1", "--no-json")).out
    assert "made it at" in shown
    assert "◆" in shown
    assert (await studio("blob", "why", UNKNOWN)).status == 6
    assert (await studio("blob", "why", made["id"], "--version", "7")).status == 6
    assert (await studio("derivation", "get", UNKNOWN)).status == 6
    assert (await studio("derivation", "why", UNKNOWN)).status == 6


async def test_a_provider_is_held_against_a_blob(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    told = (await studio("provider", "explain", "text-expansion", made["id"])).json
    assert not told["matches"]
    shown = (await studio("provider", "explain", "text-expansion", made["id"], "--no-json")).out
    assert "schema" in shown
    assert "does not react" in shown


@pytest.mark.parametrize(
    ("operation", "render"),
    [("blobs_why", _of_blob), ("derivations_why", _of_derivation), ("derivations_get", _shown),
     ("providers_explain", _explained)],
)  # fmt: skip
def test_real_answers_can_be_drawn(operation: str, render: object) -> None:
    body = examples()[operation]
    text = drawn(render(body))  # type: ignore[operator]
    assert text.strip()
    if operation == "blobs_why":
        narrow = io.StringIO()
        Console(width=40, file=narrow).print(render(body), soft_wrap=True)  # type: ignore[operator]
        for whole in (body["because"]["blob_id"], *(command_of(one) for one in body["changes"])):
            assert whole in narrow.getvalue()
        assert "…" not in narrow.getvalue()
        assert "●" in text
        assert command_of(body["changes"][0]) in text


@pytest.mark.parametrize("state", EVERY_STATE)
def test_what_would_change_a_state_is_named_as_a_command(state: State) -> None:
    for one in changes(EVERY_STATE[state], None):
        assert command_of(one).startswith("studio "), one


def test_the_commands_that_are_named_exist() -> None:
    said = [*HINTS.values(), *(command for _, command in COMMANDS), *(way for _, way in _WAYS.values())]
    for noun, verb in re.findall(
        r"studio ([a-z-]+)(?: ([a-z-]+))?", " ".join(said).replace("blob {1}", "blob accept").replace("{1}", "retry")
    ):
        found = get_command(app).commands[noun]  # type: ignore[attr-defined]
        assert not hasattr(found, "commands") or verb in found.commands, (noun, verb)
