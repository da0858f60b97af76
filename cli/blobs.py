"""``studio blob``: create, read, change, look up."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.conflicts import clashes
from cli.editing import patched
from cli.exits import FAILURE
from cli.history import operations, who
from cli.output import AsJson, details, page, print_json, say, short, show, wants_json
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
    given_text,
    part,
    talk,
)

if TYPE_CHECKING:
    from sdk.answers import Answer
    from sdk.client import Studio

app = typer.Typer(no_args_is_help=True, help="Blobs: what people and programs write, and what is derived from it.")

BlobId = Annotated[str, typer.Argument(metavar="BLOB", help="Its id.")]
Version = Annotated[int | None, typer.Option("--version", min=0, help="As it was at this version.")]
At = Annotated[str | None, typer.Option("--at", help="As it was at this instant: 2026-11-20T17:36:07Z.")]
SETTLED_WELL = frozenset({"source", "fresh", "inactive", "retired"})
DETAILS = (
    "id version title schema_id content_type size provider_id created_by tags metadata parent_ids cascade_id"
    " created_at updated_at preview"
)


@app.command()
def create(
    content: Annotated[str | None, typer.Option(help="A text; @FILE or - reads it.")] = None,
    data: Annotated[str | None, typer.Option(help="JSON; @FILE or - reads it.")] = None,
    schema: Annotated[str | None, typer.Option(help="Its schema; providers of that schema react.")] = None,
    title: Annotated[str | None, typer.Option()] = None,
    content_type: Annotated[str | None, typer.Option("--type", help="Media type, such as text/markdown.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Can be repeated.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.")] = None,
    bucket: Annotated[list[str] | None, typer.Option(help="Id of a bucket; can be repeated.")] = None,
    parent: Annotated[str | None, typer.Option(help="Id of the blob that this one stems from.")] = None,
    plan: Plan = None,
    wait: Wait = None,
    as_json: AsJson = None,
) -> None:
    """Make a blob of --content or --data."""
    if (content is None) == (data is None):
        raise typer.BadParameter("Give --content or --data, one of them.")
    fields: dict[str, Any] = {
        "schema_id": schema,
        "title": title,
        "content_type": content_type,
        "tags": tag,
        "bucket_ids": bucket,
        "parent_id": parent,
        "metadata": None if metadata is None else given_json(metadata, "--metadata"),
    }
    fields = {name: value for name, value in fields.items() if value not in (None, [])}
    if content is not None:
        fields["content"] = given_text(content)
    else:
        fields["data"] = given_json(data or "", "--data")
    show_written(as_json, talk(lambda studio: studio.under_plan(plan).create_blob(wait=wait, **fields)), "Created")


@app.command()
def get(blob: BlobId, version: Version = None, at: At = None, as_json: AsJson = None) -> None:
    """Show a blob with its preview."""
    show(as_json, talk(lambda studio: studio.get_blob(blob, version=version, at=at)).body, details(DETAILS))


@app.command()
def cat(blob: BlobId, version: Version = None, at: At = None) -> None:
    """Print a blob's content, byte for byte."""
    content = talk(lambda studio: studio.get_content(blob, version=version, at=at))
    sys.stdout.buffer.write(content)
    if sys.stdout.isatty() and not content.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()


@app.command("list")
def list_(
    schema: Annotated[str | None, typer.Option(help="Of this schema.")] = None,
    provider: Annotated[str | None, typer.Option(help="Derived by this provider.")] = None,
    tag: Annotated[str | None, typer.Option()] = None,
    bucket: Annotated[str | None, typer.Option(help="In this bucket.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List blobs, newest first."""
    filters = {"schema_id": schema, "provider_id": provider, "tag": tag, "bucket_id": bucket}
    body = fetch_page("/blobs", limit=limit, cursor=cursor, every=every, **filters)
    show(as_json, body, page("id version schema_id updated_at title", {"title": _named}))


@app.command()
def edit(
    blob: BlobId,
    content: Annotated[str | None, typer.Option(help="The new text; @FILE or - reads it.")] = None,
    data: Annotated[str | None, typer.Option(help="The new JSON; @FILE or - reads it.")] = None,
    title: Annotated[str | None, typer.Option(help="The new title.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="POINTER=VALUE", help="One field: /data/title='The Storm'. Can be repeated."),
    ] = None,
    patch: Annotated[
        str | None, typer.Option(help="JSON: an array is RFC 6902, an object RFC 7396; @FILE or - reads it.")
    ] = None,
    if_version: Annotated[int | None, typer.Option(help="The version you know: only if it still is this one.")] = None,
    on_conflict: Annotated[
        str | None, typer.Option(metavar="reject|merge|last_write_wins", help="If it is not: merge, or overwrite.")
    ] = None,
    plan: Plan = None,
    wait: Wait = None,
    as_json: AsJson = None,
) -> None:
    """Change a blob. Without an option its content opens in $EDITOR."""
    wanted = patch_of(content, data, title, values or [], patch)
    if wanted is None:
        answer = _edited_by_hand(blob, if_version, wait)
    else:
        asked = {"if_match": "*" if if_version is None else if_version, "on_conflict": on_conflict, "wait": wait}
        answer = talk(lambda studio: patched(studio.under_plan(plan), blob, wanted, **asked))
    show_written(as_json, answer, "Now")


@app.command()
def history(
    blob: BlobId,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List what happened to a blob, oldest first: who, when, because of what."""
    body = fetch_page(f"/blobs/{part(blob)}/history", limit=limit, cursor=cursor, every=every)
    computed = {"by": who, "operation": operations(body["data"])}
    show(as_json, body, page("version operation applied_at cascade_id by", computed))


@app.command()
def dag(
    blob: BlobId,
    depth: Annotated[int | None, typer.Option(min=0, help="Levels below the blob.")] = None,
    as_json: AsJson = None,
) -> None:
    """Draw everything derived from a blob, each with its state."""
    body = talk(lambda studio: studio.dag(blob, depth=depth)).body
    if wants_json(as_json):
        print_json(body)
        return
    from cli.graph import Graph, tree  # noqa: PLC0415 - rich is for people
    from cli.output import out  # noqa: PLC0415 - as above

    out().print(tree(Graph.of(body), ids=True))


@app.command()
def watch(
    blob: BlobId,
    timeout: Annotated[float | None, typer.Option(min=0, help="Give up after so many seconds.")] = None,
    as_json: AsJson = None,
) -> None:
    """Watch everything that is derived from a blob until it is settled.

    A live tree on a terminal, else a line for each change on stderr. Exit 0 when all is fresh, 1 when something
    failed or is held, 7 after --timeout.
    """
    from cli.watching import blob_look, follow  # noqa: PLC0415 - rich is for who watches

    sight = talk(lambda studio: follow(blob_look(studio, blob), timeout))
    if wants_json(as_json):
        print_json({"nodes": list(sight.graph.nodes.values())})
    if any(node["state"] not in SETTLED_WELL for node in sight.graph.nodes.values()):
        raise typer.Exit(FAILURE)


@app.command()
def rm(
    blob: BlobId,
    if_version: Annotated[int | None, typer.Option(help="Only if it still is this version.")] = None,
    plan: Plan = None,
    yes: Yes = False,
    as_json: AsJson = None,
) -> None:
    """Delete a blob; every version stays readable."""
    confirm(f"Delete {blob}?", yes=yes)
    answer = talk(lambda studio: studio.under_plan(plan).delete_blob(blob, if_match=if_version))
    if wants_json(as_json):
        print_json({"id": blob, "deleted": True, "version": answer.version, "cascade_id": answer.cascade_id})
    else:
        say(f"Deleted {blob}; its versions are still there: studio blob get {blob} --version 1")


def show_written(as_json: bool | None, answer: Answer, verb: str) -> None:
    """Print what a write answered, and for people where to look next."""
    if wants_json(as_json):
        print_json(answer.body)
        return
    blob = answer.body
    sys.stdout.write(f"{blob['id']}\n")
    say(f"{verb} version {blob['version']} of {short(_named(blob)) or 'it'} ({blob['schema_id']}).")
    for clash in clashes(blob.get("conflicts") or []):
        say(clash)
    if blob.get("proposed_delta"):
        say(f"Yours waits: studio blob accept {blob['proposed_delta']}")
    if blob.get("rejected_delta"):
        say(f"What it took the place of is kept: studio api GET /deltas/{blob['rejected_delta']}")
    if answer.cascade_id:
        say(f"What follows: studio cascade watch {answer.cascade_id}")


def _named(row: Any) -> str:
    return short(row.get("title") or row.get("preview") or "")


def patch_of(content: str | None, data: str | None, title: str | None, values: list[str], patch: str | None) -> Any:
    """Return the patch that the options describe; None without any."""
    if patch is not None:
        if any(value is not None for value in (content, data, title)) or values:
            raise typer.BadParameter("--patch says everything: give no other change with it.")
        return given_json(patch, "--patch")
    operations: list[dict[str, Any]] = []
    if content is not None:
        operations.append({"op": "replace", "path": "/content", "value": given_text(content)})
    if data is not None:
        operations.append({"op": "replace", "path": "/data", "value": given_json(data, "--data")})
    if title is not None:
        operations.append({"op": "replace", "path": "/title", "value": title})
    operations += [_assignment(text) for text in values]
    return operations or None


def _assignment(text: str) -> dict[str, Any]:
    pointer, equals, value = text.partition("=")
    if not equals or not pointer.startswith("/"):
        raise typer.BadParameter(f"--set wants /pointer=value, not {text!r}.")
    try:
        meant = given_json(value, "--set")
    except typer.BadParameter:
        meant = value  # what is not JSON is the text itself
    return {"op": "add", "path": pointer, "value": meant}


def _edited_by_hand(blob_id: str, if_version: int | None, wait: float | None) -> Answer:
    """Open the content in the person's editor and put back what they saved, if nobody else was faster."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("Say what to change: --content, --data, --title, --set or --patch.")

    async def read(studio: Studio) -> tuple[Answer, bytes]:
        blob = await studio.get_blob(blob_id)
        return blob, await studio.get_content(blob_id, version=blob["version"])

    blob, before = talk(read)
    after = _edited(before, ".json" if "json" in blob["content_type"] else ".txt")
    if after == before:
        say("Nothing changed.")
        return blob
    match = blob["version"] if if_version is None else if_version
    return talk(lambda studio: studio.put_content(blob_id, after, blob["content_type"], if_match=match, wait=wait))


def _edited(content: bytes, suffix: str) -> bytes:
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    handle, name = tempfile.mkstemp(prefix="studio-", suffix=suffix)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        subprocess.run([*command, name], check=True)  # noqa: S603 - the editor that the person chose
        return path.read_bytes()
    except (OSError, subprocess.CalledProcessError) as error:
        raise typer.BadParameter(f"{command[0]} failed: {error}. Set EDITOR to another editor.") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
