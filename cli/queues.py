"""``studio queue``: what runs, could run and waits, in the order in which it is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, moment, page, say, show, wants_json
from cli.session import LIMIT_DEFAULT, Cursor, Every, Limit, fetch_page

if TYPE_CHECKING:
    from rich.console import RenderableType


def queue(
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Of each user, how much: needs a key with the scope admin.")
    ] = False,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List what runs, could run and waits of yours, first what comes first, and which limit holds it back."""
    scope = "all" if everybody else None
    body = fetch_page("/queue", limit=limit, cursor=cursor, every=every, scope=scope)
    show(as_json, body, page("user_id running ready waiting held") if everybody else _drawn)
    if not wants_json(as_json) and "running" in body:
        most = f" of {body['runs_limit']}" if body.get("runs_limit") else ""
        say(f"{body['running']}{most} running, {body['ready']} ready, {body['waiting']} waiting.")


def _drawn(body: Any) -> RenderableType:
    more = {"held_by": _held_by, "estimated_start": lambda row: moment(row["estimated_start"])}
    return page("position provider_id priority running ready waiting held held_by estimated_start label", more)(body)


def _held_by(row: Any) -> str:
    return ", ".join(
        f"{held['limit']} {held['name'] or ''} ({held['most']})".replace("  ", " ") for held in row["held_by"]
    )
