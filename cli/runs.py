"""``studio run`` and ``studio events``: what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, clean, details, moment, page, show, table
from cli.session import LIMIT_DEFAULT, Cursor, Every, Limit, fetch_page, talk

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Runs: every execution of a provider.")
events = typer.Typer(no_args_is_help=True, help="Events: everything that happened, in order.")


RunId = Annotated[str, typer.Argument(metavar="RUN", help="Its id.")]


@app.command("list")
def list_(
    blob: Annotated[str | None, typer.Option(help="Of runs that read or made this blob.")] = None,
    provider: Annotated[str | None, typer.Option()] = None,
    status: Annotated[str | None, typer.Option(help="running, settled, failed, superseded, …")] = None,
    cascade: Annotated[str | None, typer.Option(help="Claimed by this cascade.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List runs, newest first."""
    filters = {"blob_id": blob, "provider_id": provider, "status": status, "cascade_id": cascade}
    body = fetch_page("/runs", limit=limit, cursor=cursor, every=every, **filters)
    show(as_json, body, page("id status provider_id started_at seconds label", {"seconds": _seconds}))


@app.command()
def get(run: RunId, as_json: AsJson = None) -> None:
    """Show a run: its inputs and outputs, its steps, what it cost, and where to look at it in Temporal."""
    show(as_json, talk(lambda studio: studio.get_run(run)).body, _drawn)


@app.command()
def cancel(run: RunId, as_json: AsJson = None) -> None:
    """End a run: its derivation is held until somebody retries it, or a later cause touches it."""
    show(as_json, talk(lambda studio: studio.cancel_run(run)).body, _drawn)


@app.command()
def retry(run: RunId, as_json: AsJson = None) -> None:
    """Let what a run failed at, or was cancelled at, run again; shows the cascade that goes on."""
    show(as_json, talk(lambda studio: studio.retry_run(run)).body, details("id status label cause outcome counts"))


@app.command()
def approve(
    run: RunId,
    comment: Annotated[str | None, typer.Option(help="What to note with it.")] = None,
    step: Annotated[str | None, typer.Option(help="The step that was shown; a run may ask more than once.")] = None,
    as_json: AsJson = None,
) -> None:
    """Let a run go on that waits for a person."""
    show(as_json, talk(lambda studio: studio.approve_run(run, comment=comment, step_id=step)).body, _drawn)


@app.command()
def reject(
    run: RunId,
    comment: Annotated[str, typer.Option(help="Why it is not wanted.")],
    step: Annotated[str | None, typer.Option(help="The step that was shown; a run may ask more than once.")] = None,
    as_json: AsJson = None,
) -> None:
    """End a run that waits for a person: what it would make is not wanted."""
    show(as_json, talk(lambda studio: studio.reject_run(run, comment, step_id=step)).body, _drawn)


def approvals(
    limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None, every: Every = False, as_json: AsJson = None
) -> None:
    """List runs that wait for a person, in the order in which they began."""
    body = fetch_page("/approvals", limit=limit, cursor=cursor, every=every)
    more = {"waiting_since": lambda row: moment(row["waiting_since"])}
    show(as_json, body, page("run_id step_id provider_id waiting_since label prompt", more))


@events.command("list")
def list_events(
    kind: Annotated[list[str] | None, typer.Option("--type", help="Such as blob.created; can be repeated.")] = None,
    subject: Annotated[str | None, typer.Option(help="Such as blobs/ID.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    as_json: AsJson = None,
) -> None:
    """List events in their order, from a cursor on or from the first."""
    found = talk(lambda studio: studio.events(cursor=cursor, limit=limit, types=kind or [], subject=subject)).body
    show(as_json, found, page("id time type subject", {"time": lambda row: moment(row["time"])}))


def _seconds(row: Any) -> str:
    return "" if row.get("duration_ms") is None else f"{row['duration_ms'] / 1000:.1f}"


def _cost(usage: Any) -> str:
    if not usage:
        return ""
    if usage.get("reused"):
        return f"{usage.get('model')}, reused: {usage.get('saved_tokens', 0)} tokens saved"
    return f"{usage.get('model')}, {usage.get('total_tokens', 0)} tokens, {usage.get('duration_ms', 0)} ms"


def _drawn(body: Any) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - rich is for people

    flat = {
        **body,
        "reads": [f"{row['blob_id']} v{row['version']}" for row in body["inputs"]],
        "made": [f"{row['blob_id']} v{row['version']}" for row in body["outputs"] if row.get("version")],
        "temporal_ui": (body.get("temporal") or {}).get("ui_url"),
        "seconds": _seconds(body),
        "waited": f"{body['waited_ms'] / 1000:.1f} s for a person" if body["waited_ms"] else None,
    }
    head = details(
        "id status label provider_id cascade_id attempt execution reads made usage error started_at ended_at seconds"
        " waited temporal_ui"
    )(flat)
    rows = [(step["step_id"], step["type"], step["status"], _cost(step["usage"])) for step in body["steps"]]
    decided = [_decision(step) for step in body["steps"] if step["decision"]]
    return Group(head, "", table(["step", "type", "status", "cost"], rows), *decided) if rows else head


def _decision(step: Any) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - rich is for people

    said = step["decision"]
    comment = f": {said['comment']}" if said["comment"] else ""
    return Text(clean(f"{step['step_id']} was {said['decision']} by {said['actor']}, {moment(said['at'])}{comment}"))
