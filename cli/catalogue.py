"""``studio workflow``, ``provider``, ``schema``: register, list, get, validate."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cli.dead_letters import say_outdated
from cli.exits import FAILURE
from cli.output import AsJson, clean, details, err, page, print_json, say, short, show, wants_json
from cli.session import (
    LIMIT_DEFAULT,
    Cursor,
    Every,
    Limit,
    Plan,
    Wait,
    Yes,
    confirm,
    fetch_page,
    given_json,
    read_document,
    talk,
)

workflows = typer.Typer(no_args_is_help=True, help="Workflows: the steps that providers run.")
providers = typer.Typer(no_args_is_help=True, help="Providers: what reacts to blobs and derives more.")
schemas = typer.Typer(no_args_is_help=True, help="Schemas: what blobs look like.")

File = Annotated[str, typer.Argument(metavar="FILE", help="YAML, or JSON if its name ends so; - is stdin.")]
Reference = Annotated[str, typer.Argument(metavar="ID", help="Its slug or id.")]


@workflows.command("register")
def register_workflow(file: File, as_json: AsJson = None) -> None:
    """Register a version of a workflow; versions are immutable."""
    _register("workflows", file, as_json)


@workflows.command("validate")
def validate_workflow(file: File, as_json: AsJson = None) -> None:
    """Check a workflow without registering it: every fault at once. Exit 1 if it has any."""
    _show_validation(talk(lambda studio: studio.validate("workflows", read_document(file))).body, as_json)


@workflows.command("list")
def list_workflows(
    limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None, every: Every = False, as_json: AsJson = None
) -> None:
    """List workflows: your own and the published ones."""
    body = fetch_page("/workflows", limit=limit, cursor=cursor, every=every)
    show(as_json, body, page("id version execution built_in name"))


@workflows.command("get")
def get_workflow(
    workflow: Reference,
    version: Annotated[int | None, typer.Option(min=1)] = None,
    as_json: AsJson = None,
) -> None:
    """Show a workflow: its source, and its steps as they are interpreted."""
    body = talk(lambda studio: studio.get_registered("workflows", workflow, version=version)).body
    show(as_json, body, details("id version name description execution digest built_in created_at source"))


@providers.command("register")
def register_provider(
    file: File,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would set in motion, and do nothing.")
    ] = False,
    plan: Plan = None,
    as_json: AsJson = None,
) -> None:
    """Register a provider and activate it for yourself."""
    if dry_run:
        from cli.plans import show_plan  # noqa: PLC0415 - only who plans needs it

        document = read_document(file)
        show_plan(as_json, talk(lambda studio: studio.plan(provider=document)).body)
        return
    _register("providers", file, as_json, plan=plan)


@providers.command("validate")
def validate_provider(file: File, as_json: AsJson = None) -> None:
    """Check a provider without registering it: every fault at once. Exit 1 if it has any."""
    _show_validation(talk(lambda studio: studio.validate("providers", read_document(file))).body, as_json)


@providers.command("list")
def list_providers(
    limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None, every: Every = False, as_json: AsJson = None
) -> None:
    """List providers: your own and the published ones."""
    body = fetch_page("/providers", limit=limit, cursor=cursor, every=every)
    show(as_json, body, page("id revision active built_in name description"))


@providers.command("get")
def get_provider(provider: Reference, as_json: AsJson = None) -> None:
    """Show a provider, and whether it is active for you."""
    body = talk(lambda studio: studio.get_registered("providers", provider)).body
    names = (
        "id revision name description active settings input_schema_id output_schema_id workflow_id anchor collect"
        " origin events supported_types built_in published created_at updated_at"
    )
    show(as_json, body, details(names))


@providers.command()
def upgrade(
    provider: Reference,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made again.")] = False,
    yes: Yes = False,
    as_json: AsJson = None,
) -> None:
    """Make again what an older definition of a provider made, as one cascade. Asks first, with the count."""
    if not (dry_run or yes):
        count = talk(lambda studio: studio.upgrade(provider, dry_run=True)).body["count"]
        if count:
            confirm(f"Make {count} again?", yes=yes)
    body = talk(lambda studio: studio.upgrade(provider, dry_run=dry_run)).body
    show(as_json, body, details("provider_id revision dry_run count possible_below derivations cascade_id"))


@providers.command()
def process(
    provider: Reference,
    blob: Annotated[str, typer.Argument(metavar="BLOB", help="Id of the blob to run on.")],
    wait: Wait = None,
    as_json: AsJson = None,
) -> None:
    """Run a provider on a blob, whatever it reacts to by itself."""
    answer = talk(lambda studio: studio.process(provider, blob, wait=wait))
    if wants_json(as_json):
        print_json(answer.body)
        return
    show(as_json, answer.body, details("cascade_id status provider_id blob_id"))
    if answer.cascade_id:
        say(f"What follows: studio cascade watch {answer.cascade_id}")


@schemas.command("register")
def register_schema(file: File, as_json: AsJson = None) -> None:
    """Register a version of a schema; versions are immutable."""
    _register("schemas", file, as_json, "schema_id")


@schemas.command("list")
def list_schemas(
    limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None, every: Every = False, as_json: AsJson = None
) -> None:
    """List schemas: your own and the published ones."""
    body = fetch_page("/schemas", limit=limit, cursor=cursor, every=every)
    show(as_json, body, page("schema_id version built_in description"))


@schemas.command("get")
def get_schema(schema: Reference, as_json: AsJson = None) -> None:
    """Show a schema."""
    body = talk(lambda studio: studio.get_registered("schemas", schema)).body
    show(as_json, body, details("schema_id id version description strict_mode built_in created_at definition"))


@schemas.command("validate")
def validate_value(
    schema: Reference,
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSON; @FILE or - reads it.")],
    as_json: AsJson = None,
) -> None:
    """Hold a value against a schema: every fault at once. Exit 1 if it has any."""
    value = given_json(data, "DATA")
    _show_validation(talk(lambda studio: studio.validate_value(schema, value)).body, as_json)


def _register(noun: str, file: str, as_json: bool | None, name: str = "id", *, plan: str | None = None) -> None:
    """Register; text is its name alone on stdout, as of a blob that is made, and what there is to say on stderr."""
    document = read_document(file)
    answer = talk(lambda studio: studio.under_plan(plan).register(noun, document))
    if wants_json(as_json):
        print_json(answer.body)
        return
    sys.stdout.write(f"{answer.body[name]}\n")
    say_outdated(answer.body.get("outdated_providers") or [])
    version = answer.body.get("revision") or answer.body["version"]
    new = answer.status == 201  # noqa: PLR2004 - created
    say(
        f"Registered: version {version}."
        if new
        else f"It was registered already, as version {version}; nothing changed."
    )


def _show_validation(body: dict[str, Any], as_json: bool | None) -> None:
    """Print what was found wrong; exit 1 if anything was."""
    if wants_json(as_json):
        print_json(body)
    elif body["valid"]:
        say("Valid.")
    else:
        from rich.text import Text  # noqa: PLC0415 - rich is for people

        for fault in body["errors"]:
            line = Text.assemble((clean(fault["pointer"]) or "/", "cyan"), f": {clean(fault['detail'])} ")
            err().print(line.append(f"({short(fault['code'])})", "dim"), soft_wrap=True)
    if not body["valid"]:
        raise typer.Exit(FAILURE)
