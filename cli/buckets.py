"""``studio bucket``: what belongs together."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cli.output import AsJson, details, page, print_json, say, show, wants_json
from cli.session import LIMIT_DEFAULT, Cursor, Every, Limit, Yes, confirm, fetch_page, given_json, part, talk

app = typer.Typer(no_args_is_help=True, help="Buckets: books, collections, conversations.")

BucketId = Annotated[str, typer.Argument(metavar="BUCKET", help="Its id.")]
BlobId = Annotated[str, typer.Argument(metavar="BLOB", help="Id of a blob.")]
DETAILS = "id name type blob_count parent_id child_bucket_ids metadata version created_at updated_at"


@app.command()
def create(
    name: Annotated[str, typer.Argument()],
    kind: Annotated[str | None, typer.Option("--type", help="book, collection, conversation, …")] = None,
    parent: Annotated[str | None, typer.Option(help="Id of the bucket that it is in.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.")] = None,
    as_json: AsJson = None,
) -> None:
    """Make a bucket. Of type book, its finished chapters are compiled into one manuscript."""
    fields: dict[str, Any] = {"type": kind, "parent_id": parent}
    fields["metadata"] = None if metadata is None else given_json(metadata, "--metadata")
    given = {name: value for name, value in fields.items() if value is not None}
    bucket = talk(lambda studio: studio.create_bucket(name, **given)).body
    if wants_json(as_json):
        print_json(bucket)
    else:
        sys.stdout.write(f"{bucket['id']}\n")
        say(f"Made the {bucket['type']} {name}.")


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Option("--type")] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List buckets."""
    body = fetch_page("/buckets", limit=limit, cursor=cursor, every=every, type=kind)
    show(as_json, body, page("id type blob_count created_at name"))


@app.command()
def get(bucket: BucketId, as_json: AsJson = None) -> None:
    """Show a bucket."""
    show(as_json, talk(lambda studio: studio.get_bucket(bucket)).body, details(DETAILS))


@app.command()
def blobs(
    bucket: BucketId, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None, every: Every = False, as_json: AsJson = None
) -> None:
    """List the blobs of a bucket by position; outputs follow what they were made from."""
    body = fetch_page(f"/buckets/{part(bucket)}/blobs", limit=limit, cursor=cursor, every=every)
    show(as_json, body, page("position blob_id version schema_id provider_id title"))


@app.command()
def add(
    bucket: BucketId,
    blob: BlobId,
    position: Annotated[int | None, typer.Option(min=0, help="Its place; without one it comes last.")] = None,
    as_json: AsJson = None,
) -> None:
    """Put a blob into a bucket, or move it there to another position."""
    answer = talk(lambda studio: studio.add_to_bucket(bucket, blob, position=position))
    show(as_json, answer.body, details("bucket_id blob_id position title cascade_id"))


@app.command()
def remove(bucket: BucketId, blob: BlobId, yes: Yes = False, as_json: AsJson = None) -> None:
    """Take a blob, and what was derived from it, out of a bucket; the blobs themselves stay."""
    confirm(f"Take {blob} out of {bucket}?", yes=yes)
    answer = talk(lambda studio: studio.remove_from_bucket(bucket, blob))
    if wants_json(as_json):
        print_json({"bucket_id": bucket, "blob_id": blob, "removed": True, "cascade_id": answer.cascade_id})
    else:
        say(f"Took {blob} out of {bucket}.")
