"""``studio blob import`` and ``export``, ``studio quota`` and ``studio admin limits``: much at once, and how much."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.budgets import dollars, micros
from cli.exits import FAILURE
from cli.output import AsJson, details, print_json, say, short, show, wants_json
from cli.session import talk

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sdk.client import Studio

SHOWN_MAX = 20
"""Failures that people are shown one by one; JSON has them all."""
UNLIMITED = "unlimited"
BY_SETTINGS = "settings"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def import_(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Everything below it is imported.")],
    bucket: Annotated[str | None, typer.Option(help="Id of a bucket that the blobs join.")] = None,
    schema: Annotated[str | None, typer.Option(help="Their schema; providers of that schema react.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag beside those of the folders; can be repeated.")] = None,
    as_json: AsJson = None,
) -> None:
    """Make a blob of every file below a folder.

    Interrupted, run it again: what is there already is not made twice. Links and hidden names are left out. Exit 1 if a
    file could not be imported; all others are.
    """
    from cli.imports import Report, Target, import_folder  # noqa: PLC0415 - only who imports needs it

    async def work(studio: Studio) -> Report:
        if bucket is not None:
            await studio.get_bucket(bucket)
        return await import_folder(studio, folder, Target(bucket_id=bucket, schema_id=schema, tags=tuple(tag or ())))

    report = talk(work)
    if wants_json(as_json):
        print_json(report.as_json())
    else:
        say(f"Imported {report.imported}, already there {report.already_there}, left out {len(report.left_out)}.")
        _show_failures(report.failed)
    if report.failed:
        raise typer.Exit(FAILURE)


def export(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Files go here, and manifest.json.")],
    bucket: Annotated[str | None, typer.Option(help="Only blobs in this bucket.")] = None,
    schema: Annotated[str | None, typer.Option(help="Only blobs of this schema.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only blobs with this tag.")] = None,
    as_json: AsJson = None,
) -> None:
    """Write every blob into a file, where it was imported from or by its title.

    Run again, it fetches only what changed. Exit 1 if a blob could not be written; all others are.
    """
    from cli.exports import export_folder  # noqa: PLC0415 - only who exports needs it

    filters = {"bucket_id": bucket, "schema_id": schema, "tag": tag}
    report = talk(lambda studio: export_folder(studio, folder, filters))
    if wants_json(as_json):
        body = {"exported": report.exported, "unchanged": report.unchanged, "failed": report.failed}
        print_json(body | {"manifest": str(folder / "manifest.json")})
    else:
        say(f"Exported {report.exported}, unchanged {report.unchanged}; {folder / 'manifest.json'} lists them.")
        _show_failures(report.failed)
    if report.failed:
        raise typer.Exit(FAILURE)


def quota(as_json: AsJson = None) -> None:
    """Say how many bytes you use, open uploads have reserved, you may have, and are left."""
    body = talk(lambda studio: studio.quota()).body
    show(as_json, body, _usage)


def limits(
    user: Annotated[str, typer.Argument(metavar="USER", help="Id of the user.")],
    quota: Annotated[
        str | None, typer.Option(help=f"Bytes that may be stored, such as 500M or 10G, or {UNLIMITED}.")
    ] = None,
    runs: Annotated[
        str | None, typer.Option(metavar="N|settings", help="Runs at a time; settings: what the settings say.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help=f"Dollars that paid steps may spend, such as 5 or 0.25, or {UNLIMITED}.")
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Say what a user may store, run at a time and spend; what is left out stays.

    What is stored stays, even beyond a quota; then nothing can grow. Runs that are under way end as they would.
    """
    fields: dict[str, int | None] = {}
    if quota is not None:
        fields["bytes_quota"] = _bytes(quota)
    if runs is not None:
        fields["runs_limit"] = _runs(runs)
    if budget is not None:
        fields["budget_limit"] = None if budget == UNLIMITED else micros(budget)
    if not fields:
        raise typer.BadParameter("Say what is limited: --quota, --runs, --budget.")
    show(as_json, talk(lambda studio: studio.set_limits(user, **fields)).body, _limits)


def _runs(text: str) -> int | None:
    if text == BY_SETTINGS:
        return None
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"--runs is a number of runs at a time, or {BY_SETTINGS}.")
    return int(text)


def _limits(body: dict[str, Any]) -> RenderableType:
    rows = _sizes(body) | {"runs": BY_SETTINGS if body["runs_limit"] is None else body["runs_limit"]}
    return details("user_id used reserved quota free runs budget")(
        {**body, **rows, "budget": dollars(body["budget"]["limit"])}
    )


def _usage(body: dict[str, Any]) -> RenderableType:
    return details("user_id used reserved quota free")({**body, **_sizes(body)})


def _sizes(body: dict[str, Any]) -> dict[str, Any]:
    """Return what is used and allowed, in bytes and as people say it; no quota is a row as well."""
    names = ("bytes_used", "bytes_reserved", "bytes_quota", "bytes_free")
    rows = {name.removeprefix("bytes_"): _size(body[name]) for name in names if body.get(name) is not None}
    rows.setdefault("quota", "none")
    return rows


def _size(count: int) -> str:
    """Return bytes in the units that --quota takes, rounded, beside the exact count."""
    unit, factor = max(
        ((unit, factor) for unit, factor in _UNITS.items() if factor <= max(count, 1)), key=lambda item: item[1]
    )
    return f"{count} bytes" + (f" ({count / factor:.1f} {unit if unit == 'k' else unit.upper()}B)" if unit else "")


def _bytes(text: str) -> int | None:
    if text == UNLIMITED:
        return None
    number, unit = (text[:-1], text[-1:].lower()) if text[-1:].isalpha() else (text, "")
    if not (number.isascii() and number.isdigit()) or unit not in _UNITS:
        raise typer.BadParameter(f"--quota is a number of bytes, such as 500M or 10G, or {UNLIMITED}.")
    return int(number) * _UNITS[unit]


def _show_failures(failed: list[dict[str, Any]]) -> None:
    if failed:
        say(f"failed {len(failed)}:")
    for failure in failed[:SHOWN_MAX]:
        say(f"  {short(failure['path'], 120)}: {short(failure['detail'], 200)}")
    if len(failed) > SHOWN_MAX:
        say(f"  and {len(failed) - SHOWN_MAX} more: --json has them all.")
