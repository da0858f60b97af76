"""``studio api``: any request, as the API's own documentation writes it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.output import AsJson, print_json, say
from cli.session import Wait, given_text, talk

METHODS = ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE")


def api(
    method: Annotated[str, typer.Argument(help="GET, POST, PATCH, PUT or DELETE.")],
    path: Annotated[str, typer.Argument(help="Such as /blobs?limit=5; below /api/v1/studio unless it says /api/.")],
    data: Annotated[str | None, typer.Option("--data", "-d", help="The body; @FILE or - reads it.")] = None,
    content_type: Annotated[str | None, typer.Option("--type", help="Of the body; application/json.")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="Name: value; can be repeated.")] = None,
    wait: Wait = None,
    as_json: AsJson = None,  # noqa: ARG001 - accepted as everywhere: what is answered is what is printed
) -> None:
    """Send one request and print what is answered."""
    if method.upper() not in METHODS:
        raise typer.BadParameter(f"{method} is no method of the API: {', '.join(METHODS)}.")
    headers = dict(_header(text) for text in header or [])
    body = None if data is None else given_text(data)
    if body is not None:
        headers.setdefault("Content-Type", content_type or "application/json")
    answer = talk(lambda studio: studio.request(method, path, content=body, headers=headers, wait=wait))
    if answer.body is not None:
        print_json(answer.body)
    elif answer.content:
        sys.stdout.buffer.write(answer.content)
        sys.stdout.flush()
    else:
        say(f"{answer.status}, nothing more.")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter(f"A header is 'Name: value', not {text!r}.")
    return name.strip(), value.strip()
