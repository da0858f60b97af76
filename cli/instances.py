"""``studio provider instance, configure, activate, pause``: your own activation of a provider."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, details, say, show, wants_json
from cli.session import Plan, given_json, given_text, talk

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sdk.answers import Answer
    from sdk.client import Studio

Reference = Annotated[str, typer.Argument(metavar="ID", help="Its slug or id.")]
PROVIDERS = "provider"
"""In place of a value: what the provider's registration says, instead of your own."""
NAMES = "id provider_id active settings debounce supersede on_conflict on_parent_failure version updated_at cascade_id"


def instance(provider: Reference, as_json: AsJson = None) -> None:
    """Show whether a provider reacts to your blobs, with which settings, at which pace."""
    show(as_json, talk(lambda studio: studio.instance(provider)).body, _drawn)


def activate(
    provider: Reference,
    settings: Annotated[str | None, typer.Option(help="A JSON object; @FILE or - reads it.")] = None,
    plan: Plan = None,
    as_json: AsJson = None,
) -> None:
    """Switch a provider on for yourself: it catches up with everything that it missed."""
    fields: dict[str, Any] = {"active": True}
    if settings is not None:
        fields["settings"] = given_json(settings, "--settings")
    _show(as_json, talk(lambda studio: studio.under_plan(plan).set_instance(provider, **fields)))


def pause(provider: Reference, plan: Plan = None, as_json: AsJson = None) -> None:
    """Switch a provider off for yourself: it starts nothing, its last outputs stay."""
    _show(as_json, talk(lambda studio: studio.under_plan(plan).set_instance(provider, active=False)))


def configure(
    provider: Reference,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Switch it on or off.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting: tone=warm, length=300. Can be repeated."),
    ] = None,
    quiet: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Wait for so long a pause between edits: 2s; 0 waits not.")
    ] = None,
    max_wait: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Wait at most so long; ten times --quiet without it.")
    ] = None,
    supersede: Annotated[
        str | None, typer.Option(metavar="cancel|finish", help="A run that an edit overtakes ends, or settles first.")
    ] = None,
    on_parent_failure: Annotated[
        str | None, typer.Option(metavar="block|use_last_good|skip", help="Where something that it reads has failed.")
    ] = None,
    on_conflict: Annotated[
        str | None, typer.Option(metavar="keep_human|wait|take_machine", help="Where you and it changed the same.")
    ] = None,
    if_version: Annotated[int | None, typer.Option("--if-version", help="Only if it still is this version.")] = None,
    plan: Plan = None,
    as_json: AsJson = None,
) -> None:
    """Change what you name of your activation of a provider; the rest stays, its other settings too.

    The word `provider` in place of a value gives up your own: what its registration says holds again.
    """
    policies = {"supersede": supersede, "on_parent_failure": on_parent_failure, "on_conflict": on_conflict}
    fields: dict[str, Any] = {
        name: None if value == PROVIDERS else value for name, value in policies.items() if value is not None
    }
    if quiet is not None or max_wait is not None:
        fields["debounce"] = _debounce(quiet, max_wait)
    if active is not None:
        fields["active"] = active
    settings = _settings(values or ())
    if not fields and not settings:
        raise typer.BadParameter("Say what is to change, such as --quiet 2s; studio provider instance shows it.")

    async def work(studio: Studio) -> Answer:
        bound = studio.under_plan(plan)
        return await bound.configure(provider, settings=settings or None, if_match=if_version, **fields)

    _show(as_json, talk(work))


def _settings(given: Sequence[str]) -> dict[str, Any]:
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"--set is KEY=VALUE, not {one!r}.")
        text = given_text(value)
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def _debounce(quiet: str | None, max_wait: str | None) -> dict[str, float] | None:
    if quiet is None:
        raise typer.BadParameter("--max-wait goes with --quiet.")
    if quiet == PROVIDERS:
        if max_wait is not None:
            raise typer.BadParameter("--quiet provider leaves both to the provider: leave out --max-wait.")
        return None
    found = {"quiet": _seconds(quiet, "--quiet")}
    return found if max_wait is None else found | {"max_wait": _seconds(max_wait, "--max-wait")}


def _seconds(text: str, option: str) -> float:
    """Return a duration in seconds; without a unit it is seconds."""
    from domain.durations import parse_duration  # noqa: PLC0415 - only who sets a pace needs it

    try:
        return parse_duration(f"{text}s" if text[-1:].isdigit() else text).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: {error}.") from error


def _show(as_json: bool | None, answer: Answer) -> None:
    show(as_json, answer.body, _drawn)
    if answer.cascade_id and not wants_json(as_json):
        say(f"What follows: studio cascade watch {answer.cascade_id}")


def _drawn(body: Mapping[str, Any]) -> RenderableType:
    pace = body["debounce"]
    told = "none" if pace is None else f"{pace['quiet']:g} s quiet, {pace['max_wait']:g} s at most"
    return details(NAMES)({**body, "debounce": told})
