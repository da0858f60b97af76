"""A command's conversation with the API."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from sdk.client import Studio

T = TypeVar("T")

FILE_BYTES_MAX = 64 << 20
"""What is read of a file or of stdin; the API refuses far less."""
LIMIT_DEFAULT = 50

Limit = Annotated[int, typer.Option("--limit", min=1, max=200, help="Rows of one page.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="Go on where an earlier page ended.")]
Every = Annotated[bool, typer.Option("--all", help="Every page.")]
Wait = Annotated[
    float | None, typer.Option("--wait", min=0, max=30, help="Wait up to so many seconds until all has followed.")
]
Plan = Annotated[
    str | None, typer.Option("--plan", metavar="PLAN", help="Only if this plan still holds: studio cascade plan.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def talk(work: Callable[[Studio], Awaitable[T]]) -> T:
    """Do some work with a client of the API that the environment or a running stack names.

    Raises ApiProblem, NoEndpoints.
    """
    from sdk.client import Studio  # noqa: PLC0415 - a third of a second that `studio --help` need not pay

    async def run() -> T:
        async with Studio.connected(retries=2) as studio:
            return await work(studio)

    return asyncio.run(run())


def fetch_page(path: str, *, limit: int, cursor: str | None, every: bool, **filters: Any) -> Any:
    """Return one page of a list as the API answers it, or every row as one page."""

    async def work(studio: Studio) -> Any:
        if every:
            rows = [row async for row in studio.pages(path, filters)]
            return {"data": rows, "next_cursor": None, "has_more": False}
        answer = await studio.request("GET", path, params={**filters, "limit": limit, "cursor": cursor})
        return answer.body

    return talk(work)


def part(reference: str) -> str:
    """Return an id as one part of a path."""
    from sdk.transport import part as quoted  # noqa: PLC0415 - as above

    return quoted(reference)


def read_text(source: str) -> str:
    """Return the text of a file, or of stdin for ``-``. A usage error when it cannot be read."""
    try:
        raw = sys.stdin.buffer.read(FILE_BYTES_MAX) if source == "-" else _file(Path(source))
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{source} cannot be read: {error}") from error


def _file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX)


def given_text(value: str) -> str:
    """Return an option's value: ``@FILE`` and ``-`` name where it is to be read."""
    if value == "-":
        return read_text("-")
    return read_text(value[1:]) if value.startswith("@") else value


def given_json(value: str, name: str) -> Any:
    """Return an option's value as JSON; ``@FILE`` and ``-`` as in ``given_text``."""
    try:
        return json.loads(given_text(value))
    except ValueError as error:
        raise typer.BadParameter(f"{name} is not JSON: {error}") from error


def read_document(source: str) -> dict[str, Any] | str:
    """Return a registration: the JSON object of a .json file, else the text (YAML) as it is."""
    text = read_text(source)
    if not source.endswith(".json"):
        return text
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{source} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{source} is not an object.")
    return value


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is removed; without a terminal only ``--yes`` will do (exit 2)."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise typer.BadParameter("Nobody can be asked here: say --yes.")
    typer.confirm(question, abort=True, err=True)
