"""What commands print: data on stdout (JSON when asked for, or when nobody reads along), everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.tree import Tree

    from sdk.problems import ApiProblem

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
WORDS_MAX = 60
CELL_MAX = 200
LINE_MAX = 120
FLEXIBLE_MIN = 12
"""Characters that any other column keeps on a narrow terminal."""
GAP = 2
PIPE_COLUMNS = 200
"""Width of a table that goes to no terminal."""
WHOLE = re.compile(r"(^|[_ ])(id|at|since|status|state|provider|version|execution|step|type|url)$")
"""Columns that are never cut: what they show is pasted elsewhere, or says what matters."""


class _Asked:
    """Whether JSON was asked for: also the answer to how an error is to be told."""

    json: bool | None = None


def _remember(value: bool | None) -> bool | None:
    _Asked.json = value
    return value


AsJson = Annotated[
    bool | None,
    typer.Option(
        "--json/--no-json",
        help="JSON on stdout. Without either: JSON unless stdout is a terminal.",
        callback=_remember,
        show_default=False,
    ),
]


def wants_json(asked: bool | None = None) -> bool:
    """Tell whether stdout gets JSON."""
    asked = _Asked.json if asked is None else asked
    return not sys.stdout.isatty() if asked is None else asked


def forget() -> None:
    """Begin anew: nothing was asked yet."""
    _Asked.json = None


def show(as_json: bool | None, value: Any, render: Callable[[Any], RenderableType]) -> None:
    """Print a value as JSON, or as ``render`` draws it for people."""
    if wants_json(as_json):
        print_json(value)
    else:
        out().print(render(value), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()


def out() -> Console:
    """Return the console for data."""
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that only people pay

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def err() -> Console:
    """Return the console for everything else."""
    from rich.console import Console  # noqa: PLC0415 - as above

    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Tell a person something on stderr."""
    from rich.text import Text  # noqa: PLC0415 - as above

    err().print(Text(clean(text)), soft_wrap=True)


def clean(text: object) -> str:
    """Return text without what would command a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def short(text: object, characters: int = WORDS_MAX) -> str:
    """Return the first line of a text, shortened."""
    first = clean(text).strip().partition("\n")[0]
    return first if len(first) <= characters else first[: characters - 1].rstrip() + "…"


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> RenderableType:
    """Return a plain table. Ids are never cut, so that they can be pasted: rather it is wider than the terminal."""
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    cells = [["" if cell is None else short(cell, CELL_MAX) for cell in row] for row in rows]
    names = list(columns)
    widest = [max((len(row[index]) for row in cells), default=0) for index in range(len(names))]
    least = [
        max(wide if WHOLE.search(name) else min(wide, FLEXIBLE_MIN), len(name))
        for name, wide in zip(names, widest, strict=True)
    ]
    needed = sum(least) + GAP * (len(names) - 1)
    made = Table(box=None, pad_edge=False, header_style="dim", width=needed if needed > out().width else None)
    for name, width in zip(names, least, strict=True):
        made.add_column(name.replace("_", " "), no_wrap=True, overflow="ellipsis", min_width=width)
    for row in cells:
        made.add_row(*map(Text, row))
    return made


def outline(tree: Tree) -> RenderableType:
    """Return a tree as lines that the terminal wraps: drawn by rich they are cut at its edge, and ids with them."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    def said(label: RenderableType) -> Text:
        return label if isinstance(label, Text) else Text(str(label))

    lines = [] if tree.hide_root else [said(tree.label)]
    pending = [(child, "", child is tree.children[-1]) for child in reversed(tree.children)]
    flat = tree.hide_root
    while pending:
        branch, before, last = pending.pop()
        top = flat and branch in tree.children
        mark, below = ("", "") if top else ("└── ", "    ") if last else ("├── ", "│   ")
        lines.append(Text.assemble((before + mark, tree.guide_style), said(branch.label)))
        pending += [(child, before + below, child is branch.children[-1]) for child in reversed(branch.children)]
    return Group(*lines)


def page(names: str, of: Mapping[str, Callable[[Any], object]] | None = None) -> Callable[[Any], RenderableType]:
    """Return what draws a page of a list: the members ``names`` of each row, some computed by ``of``."""
    columns = names.split()

    def draw(body: Any) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415 - as above
        from rich.text import Text  # noqa: PLC0415 - as above

        rows = [[_cell(row, name, of or {}) for name in columns] for row in body["data"]]
        more = [Text(f"more: --cursor {body['next_cursor']}", style="dim")] if body.get("has_more") else []
        return Group(table(columns, rows), *more) if rows else Text("none", style="dim")

    return draw


def _cell(row: Mapping[str, Any], name: str, of: Mapping[str, Callable[[Any], object]]) -> object:
    if name in of:
        return of[name](row)
    value = row.get(name)
    return moment(value) if name.endswith("_at") else value


def moment(value: Any) -> str:
    """Return a time as people here read it: their own zone, named, to the second."""
    return "" if not value else datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def details(names: str) -> Callable[[Any], RenderableType]:
    """Return what draws the members ``names`` of one object, one a line; the terminal wraps them, so they paste."""
    wanted = names.split()
    margin = max(map(len, wanted)) + GAP

    def draw(body: Any) -> RenderableType:
        from rich.text import Text  # noqa: PLC0415 - as above

        lines = []
        for name in wanted:
            if body.get(name) not in (None, "", [], {}):
                first, *rest = _shown(name, body[name]).split("\n")
                lines.append(Text.assemble((f"{name.replace('_', ' '):<{margin}}", "dim"), first))
                lines += [Text(" " * margin + line) for line in rest]
        return Text("\n").join(lines)

    return draw


def _shown(name: str, value: Any) -> str:
    if name.endswith("_at"):
        return moment(value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return clean(", ".join(value))
    line = json.dumps(value, ensure_ascii=False)
    return clean(line if len(line) <= LINE_MAX else json.dumps(value, ensure_ascii=False, indent=2))


def show_problem(problem: ApiProblem, more: Iterable[str] = ()) -> None:
    """Print a problem: the document itself as JSON, or what it says, each fault and each of ``more`` on its line."""
    if wants_json():
        print_json(problem.document)
        return
    from rich.text import Text  # noqa: PLC0415 - as above

    from cli.problems import hint_of, sentences_of  # noqa: PLC0415 - only after a failure

    console = err()
    sentence, faults = sentences_of(problem)
    status = f", {problem.status}" if problem.status else ""
    console.print(
        Text.assemble(("error: ", "bold red"), clean(sentence), (f" ({problem.code}{status})", "dim")), soft_wrap=True
    )
    for where, detail in faults:
        console.print(Text.assemble("  ", (clean(where), "cyan"), f": {clean(detail)}"), soft_wrap=True)
    for line in more:
        console.print(Text(f"  {clean(line)}"), soft_wrap=True)
    if hint := hint_of(problem):
        console.print(Text(f"  hint: {clean(hint)}", style="dim"), soft_wrap=True)
    if problem.document.get("request_id"):
        console.print(Text(f"  request {problem.document['request_id']}", style="dim"))
