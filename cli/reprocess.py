"""``studio blob reprocess``, ``studio derivation reprocess``: run again although nothing has changed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.output import AsJson, details, print_json, say, show, wants_json
from cli.session import Wait, talk

Subtree = Annotated[bool, typer.Option("--subtree", help="And everything below, whether it changes or not.")]
Force = Annotated[bool, typer.Option("--force", help="Pay for new answers: reuse none from before.")]


def blob_reprocess(
    blob: Annotated[str, typer.Argument(metavar="BLOB", help="Its id.")],
    provider: Annotated[str | None, typer.Option(help="What this provider makes of it; else what makes it.")] = None,
    subtree: Subtree = False,
    force: Force = False,
    wait: Wait = None,
    as_json: AsJson = None,
) -> None:
    """Run again what makes a blob or, if a person wrote it, what reads it."""
    answer = talk(lambda studio: studio.reprocess(blob, provider_id=provider, subtree=subtree, force=force, wait=wait))
    _told(answer, as_json)


def derivation_reprocess(
    derivation: Annotated[str, typer.Argument(metavar="DERIVATION", help="Its id.")],
    subtree: Subtree = False,
    force: Force = False,
    wait: Wait = None,
    as_json: AsJson = None,
) -> None:
    """Run a derivation again."""
    answer = talk(lambda studio: studio.reprocess_derivation(derivation, subtree=subtree, force=force, wait=wait))
    _told(answer, as_json)


def _told(answer: Any, as_json: bool | None) -> None:
    if wants_json(as_json):
        print_json(answer.body)
        return
    show(as_json, answer.body, details("cascade_id status scope force derivation_ids"))
    if answer.cascade_id:
        say(f"What follows: studio cascade watch {answer.cascade_id}")
