"""``studio dead-letter``: runs that failed for good, and trying them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, details, page, print_json, say, show, table, wants_json
from cli.session import LIMIT_DEFAULT, Cursor, Every, Limit, Yes, confirm, fetch_page, talk

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Dead letters: runs that failed for good, each parked once.")

Provider = Annotated[str | None, typer.Option(help="Of this provider.")]
Code = Annotated[str | None, typer.Option(help="With this problem code, such as service_rejected.")]


@app.command("list")
def list_(
    provider: Provider = None,
    code: Code = None,
    status: Annotated[str | None, typer.Option(help="open, redriven or overtaken.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List dead letters, newest first."""
    filters = {"provider_id": provider, "code": code, "status": status}
    body = fetch_page("/dead-letters", limit=limit, cursor=cursor, every=every, **filters)
    show(as_json, body, page("id status code provider_id created_at label"))


@app.command("show")
def show_(letter: Annotated[str, typer.Argument(metavar="ID", help="Its id.")], as_json: AsJson = None) -> None:
    """Show what failed: on which inputs, by which definition, why, and what it cost."""
    show(as_json, talk(lambda studio: studio.get_dead_letter(letter)).body, _drawn)


@app.command()
def redrive(
    letters: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Some of them.")] = None,
    provider: Provider = None,
    code: Code = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which and how many that would be.")] = False,
    yes: Yes = False,
    as_json: AsJson = None,
) -> None:
    """Try them again, as one cascade and with the definitions of now. Asks first, with the count."""
    if not letters and provider is None and code is None:
        raise typer.BadParameter("Say which: ids, --provider or --code.")

    def ask(*, only_count: bool) -> Any:
        return talk(lambda s: s.redrive(letters or None, provider_id=provider, code=code, dry_run=only_count)).body

    if not (dry_run or yes):
        preview = ask(only_count=True)
        say_outdated(preview["outdated_providers"])
        if count := preview["count"]:
            confirm(f"Run {count} again?", yes=yes)
    body = ask(only_count=dry_run)
    if wants_json(as_json):
        print_json(body)
        return
    show(as_json, body, _redriven)
    if dry_run or yes:
        say_outdated(body["outdated_providers"])
    if body["cascade_id"]:
        say(f"What follows: studio cascade watch {body['cascade_id']}")


def say_outdated(providers: Sequence[Mapping[str, Any]]) -> None:
    """Say which providers do not use the newest version of their workflow yet, and what would change that."""
    for row in providers:
        version = f"version {row['version']}" if row["version"] else "an older version"
        say(
            f"Provider {row['provider_id']} still uses {version} of workflow {row['workflow_id']}, the newest is"
            f" {row['newest']}: register the provider again (studio provider register) to use that."
        )


def _drawn(body: Any) -> RenderableType:
    flat = {**body, "reads": [f"{row['blob_id']} v{row['version']}" for row in body["inputs"]]}
    return details(
        "id status code detail provider_id label run_id cascade_id attempt reads usage charged definition_digest"
        " current_definition_digest created_at redriven_at redriven_by"
    )(flat)


def _redriven(body: Any) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - rich is for people

    done = "would run again" if body["dry_run"] else "run again"
    lines = [f"{body['count']} {done}." + (" There are more." if body["more"] else "")]
    apart = [(body["already_redriven"], "redriven before"), (body["overtaken"], "overtaken since"),
             (len(body["unknown"]), "unknown")]  # fmt: skip
    lines += [f"{count} {what}: left alone." for count, what in apart if count]
    rows = [(row["id"], row["code"], row["provider_id"], row["label"]) for row in body["dead_letters"]]
    return Group(*lines, table(["id", "code", "provider", "label"], rows)) if rows else Group(*lines)
