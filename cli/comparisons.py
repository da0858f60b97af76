"""``studio blob diff`` and ``compare``: what differs, readable, with colour on a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import LINE_MAX, AsJson, clean, show
from cli.session import talk

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Unit = Annotated[str, typer.Option("--unit", metavar="paragraph|sentence|word", help="How finely texts are compared.")]

GAP = " […] "
"""Stands for what is left out of a long stretch."""
CONTEXT_CHARACTERS = 60
"""What is shown of an equal stretch on either side of a change."""
DELETED, INSERTED = "red strike", "green"


def diff(
    blob: Annotated[str, typer.Argument(metavar="BLOB", help="Its id.")],
    since: Annotated[
        int | None, typer.Option("--from", min=1, help="The earlier version; else the one before.")
    ] = None,
    to: Annotated[int | None, typer.Option("--to", min=1, help="The later version; else the newest.")] = None,
    unit: Unit = "word",
    as_json: AsJson = None,
) -> None:
    """Show what changed between two versions of a blob: -[deleted]- and +[inserted]+, with colour on a terminal."""
    show(as_json, talk(lambda studio: studio.diff_blob(blob, since=since, to=to, unit=unit)).body, drawn)


def compare(
    left: Annotated[str, typer.Argument(metavar="LEFT", help="A blob's id; ID@3 is its version 3.")],
    right: Annotated[str, typer.Argument(metavar="RIGHT", help="Another one.")],
    unit: Unit = "word",
    as_json: AsJson = None,
) -> None:
    """Show what differs between two blobs."""
    show(as_json, talk(lambda studio: studio.compare(left, right, unit=unit)).body, drawn)


def drawn(body: Any) -> RenderableType:
    """Draw a comparison as the API answers it."""
    from rich.text import Text  # noqa: PLC0415 - rich is for people

    if body["equal"]:
        return Text(f"{_side(body['left'])} and {_side(body['right'])} say the same.", style="dim")
    lines = [Text(f"{_side(body['left'])} → {_side(body['right'])}: {_summary(body)}", style="dim")]
    for field in body["fields"]:
        lines += [Text(""), Text(clean(field["pointer"]) or "/", style="bold cyan")]
        lines.append(_text(field["spans"]) if field["op"] == "text" else _value(field))
    if body["truncated"]:
        lines += [Text(""), Text("There is more; what is left out is described in --json.", style="dim")]
    return Text("\n").join(lines)


def _side(side: Any) -> str:
    return f"{side['blob_id']} v{side['version']}"


def _summary(body: Any) -> str:
    counts = body["summary"]
    fields = "1 field" if counts["fields"] == 1 else f"{counts['fields']} fields"
    return f"{fields}, {counts['inserted']} {body['unit']}s in, {counts['deleted']} out"


def _text(spans: Any) -> Text:
    """Draw a text with its changes; of what is equal only what stands next to one."""
    from rich.text import Text  # noqa: PLC0415 - as above

    line = Text()
    for index, span in enumerate(spans):
        if span["op"] == "equal":
            line.append(_around(_shown(span["after"]), first=index == 0, last=index == len(spans) - 1))
            continue
        if span["op"] != "insert":
            line.append(f"-[{_shown(span['before'])}]-", style=DELETED)
        if span["op"] != "delete":
            line.append(f"+[{_shown(span['after'])}]+", style=INSERTED)
    return line


def _around(text: str, *, first: bool, last: bool) -> str:
    if len(text) <= 2 * CONTEXT_CHARACTERS:
        return text
    before, after = "" if first else text[:CONTEXT_CHARACTERS], "" if last else text[-CONTEXT_CHARACTERS:]
    return f"{before}{GAP}{after}"


def _shown(stretch: Any) -> str:
    text = clean(stretch["text"])
    return f"{text}{GAP}{clean(stretch['tail'])}" if "tail" in stretch else text


def _value(field: Any) -> Text:
    from rich.text import Text  # noqa: PLC0415 - as above

    line = Text()
    if "before" in field:
        line.append(f"-[{_json(field['before'])}]-", style=DELETED)
    if "after" in field:
        line.append(f"+[{_json(field['after'])}]+", style=INSERTED)
    return line


def _json(value: Any) -> str:
    line = json.dumps(value, ensure_ascii=False)
    return clean(line if len(line) <= LINE_MAX else f"{line[: LINE_MAX - 1]}…")
