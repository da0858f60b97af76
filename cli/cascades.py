"""``studio cascade``: everything that one cause set in motion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.budgets import dollars
from cli.exits import FAILURE
from cli.output import AsJson, details, moment, page, print_json, say, show, table, wants_json
from cli.session import LIMIT_DEFAULT, Cursor, Every, Limit, fetch_page, talk

if TYPE_CHECKING:
    from rich.console import RenderableType


app = typer.Typer(no_args_is_help=True, help="Cascades: what one edit, or another cause, set in motion.")

CascadeId = Annotated[str, typer.Argument(metavar="CASCADE", help="Its id.")]
WENT_WELL = frozenset({"completed", "superseded"})


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="pending, running, completed, partial, …")] = None,
    blob: Annotated[str | None, typer.Option(help="That this blob set in motion.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List cascades, newest first."""
    body = fetch_page("/cascades", limit=limit, cursor=cursor, every=every, status=status, blob_id=blob)
    settled = {"settled": lambda row: f"{row['counts']['settled']}/{row['counts']['total']}"}
    show(as_json, body, page("id status cause settled created_at label", settled))


@app.command()
def get(cascade: CascadeId, as_json: AsJson = None) -> None:
    """Show a cascade: its cause, how far it has come, its runs, and where to look at it in Temporal."""
    show(as_json, talk(lambda studio: studio.get_cascade(cascade)).body, _drawn)


@app.command()
def cancel(cascade: CascadeId, as_json: AsJson = None) -> None:
    """End a cascade: its runs end, what is queued is held. Its edits stay, and retry carries them on."""
    show(as_json, talk(lambda studio: studio.cancel_cascade(cascade)).body, _drawn)


@app.command()
def retry(cascade: CascadeId, as_json: AsJson = None) -> None:
    """Let everything of a cascade that failed or was cancelled run again."""
    show(as_json, talk(lambda studio: studio.retry_cascade(cascade)).body, _drawn)


@app.command()
def watch(
    cascade: CascadeId,
    timeout: Annotated[float | None, typer.Option(min=0, help="Give up after so many seconds.")] = None,
    as_json: AsJson = None,
) -> None:
    """Watch a cascade until it ends: a live tree on a terminal, else a line for each change on stderr.

    Exit 0 when it completed (or a newer one took its place), 1 when something failed or is held, 7 after --timeout.
    """
    from cli.watching import cascade_look, follow  # noqa: PLC0415 - rich is for who watches

    sight = talk(lambda studio: follow(cascade_look(studio, cascade), timeout))
    ended = dict(sight.cascade or {})
    if wants_json(as_json):
        print_json({"cascade": ended, "nodes": list(sight.graph.nodes.values())})
    else:
        say(f"Cascade {ended['status']}.")
        if ended.get("superseded_by"):
            say(f"A newer one took its place: studio cascade watch {ended['superseded_by']}")
    if ended["status"] not in WENT_WELL:
        raise typer.Exit(FAILURE)


def _drawn(body: Any) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - rich is for people

    from cli.graph import seconds_of  # noqa: PLC0415 - as above

    flat = {**body, "temporal_ui": (body.get("temporal") or {}).get("ui_url"), "cost": dollars(body["cost"])}
    head = details(
        "id status label cause actor edits roots provider_id counts cost superseded_by error created_at planned_at"
        " ended_at temporal_ui"
    )(flat)
    rows = [
        (run["id"], run["status"], run["provider_id"], f"{seconds_of([run])[run['derivation_id']]:.1f} s", run["label"])
        for run in body["runs"]
    ]
    parts: list[Any] = [head]
    if rows:
        parts += ["", table(["run id", "status", "provider", "took", "label"], rows)]
    folded = [
        *((d["created_at"], "folded in", f"{d['operation']} v{d['to_version']}", d["id"]) for d in body["deltas"]),
        *((c["created_at"], "took over", f"{c['edits']} edits", c["id"]) for c in body.get("supersedes", [])),
    ]
    if len(folded) > 1:
        parts += ["", table(["at", "edit", "what", "id"], [(moment(at), *rest) for at, *rest in sorted(folded)])]
    return Group(*parts) if len(parts) > 1 else head
