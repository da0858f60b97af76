"""``studio blob``: going back to a version, and deciding what is proposed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.blobs import BlobId, show_written
from cli.history import who
from cli.output import AsJson, page, print_json, say, show, wants_json
from cli.session import LIMIT_DEFAULT, Cursor, Every, Limit, Wait, fetch_page, part, talk

if TYPE_CHECKING:
    from sdk.answers import Answer

DeltaId = Annotated[str, typer.Argument(metavar="DELTA", help="Its id, as `studio blob proposals` shows it.")]
IfVersion = Annotated[int | None, typer.Option("--if-version", help="Only if it still is this version.")]


def revert(
    blob: BlobId,
    version: Annotated[int, typer.Argument(min=1, help="The version to go back to.")],
    if_version: IfVersion = None,
    wait: Wait = None,
    as_json: AsJson = None,
) -> None:
    """Go back to an earlier version: a new one, with everything in between still there."""
    answer = talk(lambda studio: studio.revert_blob(blob, version, if_match=if_version, wait=wait))
    show_written(as_json, answer, "Now")


def restore(blob: BlobId, wait: Wait = None, as_json: AsJson = None) -> None:
    """Bring a deleted blob back, and what was deleted with it."""
    show_written(as_json, talk(lambda studio: studio.restore_blob(blob, wait=wait)), "Restored,")


def reset(blob: BlobId, wait: Wait = None, as_json: AsJson = None) -> None:
    """Give up what people changed in a derived blob: it is again what its provider made of it last."""
    show_written(as_json, talk(lambda studio: studio.reset_blob(blob, wait=wait)), "Now")


def proposals(
    blob: BlobId,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    every: Every = False,
    as_json: AsJson = None,
) -> None:
    """List what waits for a decision: changes that people or providers propose."""
    path = f"/blobs/{part(blob)}/deltas"
    body = fetch_page(path, limit=limit, cursor=cursor, every=every, status="proposed")
    columns = {"by": who, "changes": _changes, "conflicts": lambda row: len(row["conflicts"]) or ""}
    show(as_json, body, page("id from_version created_at by changes conflicts", columns))


def accept(
    delta: DeltaId,
    on_conflict: Annotated[
        str | None,
        typer.Option(metavar="merge|last_write_wins", help="Where it clashes: keep what is there, or take this."),
    ] = None,
    wait: Wait = None,
    as_json: AsJson = None,
) -> None:
    """Apply what was proposed, merged with what came since."""
    answer = talk(lambda studio: studio.accept(delta, on_conflict=on_conflict, wait=wait))
    _show_decided(as_json, answer)


def reject(delta: DeltaId, as_json: AsJson = None) -> None:
    """Turn down what was proposed; the blob stays as it is."""
    _show_decided(as_json, talk(lambda studio: studio.reject(delta)))


def _show_decided(as_json: bool | None, answer: Answer) -> None:
    if wants_json(as_json):
        print_json(answer.body)
        return
    delta = answer.body
    sys.stdout.write(f"{delta['id']}\n")
    if delta["status"] == "applied":
        say(f"Applied: {delta['blob_id']} is at version {delta['to_version']}.")
    else:
        say(f"Rejected: {delta['blob_id']} stays as it is.")
    if answer.cascade_id:
        say(f"What follows: studio cascade watch {answer.cascade_id}")


def _changes(row: Any) -> str:
    return ", ".join(dict.fromkeys(operation["path"] or "/" for operation in row["patch"] or []))
