"""``studio cascade plan``: what a change would set in motion, before it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.blobs import patch_of
from cli.output import AsJson, moment, outline, print_json, say, short, table, wants_json
from cli.session import given_json, read_document, talk

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text
    from rich.tree import Tree

MARKS = {
    "certain": ("●", "yellow"),
    "possible": ("○", "yellow"),
    "unchanged": ("✓", "green"),
    "blocked": ("⊘", "magenta"),
    "rests": ("∅", "dim"),
}


def plan(
    blob: Annotated[str | None, typer.Argument(metavar="[BLOB]", help="The blob to be changed.")] = None,
    content: Annotated[str | None, typer.Option(help="The new text; @FILE or - reads it.")] = None,
    data: Annotated[str | None, typer.Option(help="The new JSON; @FILE or - reads it.")] = None,
    title: Annotated[str | None, typer.Option(help="The new title.")] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="POINTER=VALUE", help="One field; can be repeated.")
    ] = None,
    patch: Annotated[str | None, typer.Option(help="RFC 6902 or RFC 7396; @FILE or - reads it.")] = None,
    operation: Annotated[str | None, typer.Option(help="delete, restore, reset.")] = None,
    revert: Annotated[int | None, typer.Option(min=1, help="Back to this version.")] = None,
    provider: Annotated[str | None, typer.Option(metavar="FILE", help="A provider to be registered.")] = None,
    activate: Annotated[str | None, typer.Option(metavar="PROVIDER", help="A provider to be switched on.")] = None,
    pause: Annotated[str | None, typer.Option(metavar="PROVIDER", help="A provider to be switched off.")] = None,
    upgrade: Annotated[str | None, typer.Option(metavar="PROVIDER", help="Outputs of its older definitions.")] = None,
    request: Annotated[
        str | None, typer.Option(metavar="JSON", help="Anything else, as POST /cascades/plan takes it; @FILE reads it.")
    ] = None,
    as_json: AsJson = None,
) -> None:
    """Say what a change would set in motion: what runs, what it takes, whose words are at risk. Nothing is written.

    Describe an edit as `studio blob edit` takes it. Make it with `--plan ID`: it then happens only if this still holds.
    """
    edit = patch_of(content, data, title, values or [], patch)
    wishes: list[dict[str, Any]] = []
    if edit is not None:
        wishes.append({"blob_id": _needed(blob), "patch": edit})
    if operation is not None:
        wishes.append({"blob_id": _needed(blob), "operation": operation})
    if revert is not None:
        wishes.append({"blob_id": _needed(blob), "operation": "revert", "version": revert})
    if provider is not None:
        wishes.append({"provider": read_document(provider)})
    wishes += [{"provider_id": found, "active": on} for found, on in ((activate, True), (pause, False)) if found]
    if upgrade is not None:
        wishes.append({"provider_id": upgrade, "upgrade": True})
    if request is not None:
        wishes.append(given_json(request, "--request"))
    if len(wishes) != 1:
        raise typer.BadParameter("Say one change: an edit of BLOB, --operation, --revert, --provider, --activate, …")
    show_plan(as_json, talk(lambda studio: studio.plan(**wishes[0])).body)


def planned(plan_id: Annotated[str, typer.Argument(metavar="PLAN", help="Its id.")], as_json: AsJson = None) -> None:
    """Show a plan again; once it has been used, with what came of it."""
    show_plan(as_json, talk(lambda studio: studio.get_plan(plan_id)).body)


def _needed(blob: str | None) -> str:
    if blob is None:
        raise typer.BadParameter("Name the blob: studio cascade plan BLOB …")
    return blob


def show_plan(as_json: bool | None, body: Mapping[str, Any]) -> None:
    """Print a plan, and for people what to do with it."""
    if wants_json(as_json):
        print_json(body)
        return
    from cli.output import out  # noqa: PLC0415 - rich is for people

    out().print(drawn(body), soft_wrap=True)
    if body["status"] == "open":
        say(f"It holds until {moment(body['expires_at'])}. Make the change with --plan {body['id']}")
    if body["unplanned_causes"]:
        say(f"{body['unplanned_causes']} earlier changes are not planned yet: what they touch is not in it.")


def drawn(body: Mapping[str, Any]) -> RenderableType:
    """Draw a plan: in a sentence, as a tree, what it takes, and what came of it."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    counts = body["counts"]
    names = ("certain", "possible", "unchanged", "blocked", "rests")
    said = ", ".join(f"{counts[name]} {name}" for name in names if counts[name]) or "nothing follows"
    parts: list[RenderableType] = [Text.assemble((f"{body['kind']}: ", "bold"), said)]
    if body["nodes"]:
        parts += [outline(_tree(body))]
    if body["truncated"]:
        parts.append(Text("… and more than can be shown", style="dim"))
    if counts["certain"] + counts["possible"]:
        parts.append(table(["takes", "low", "high", "left out"], _takes(body["estimate"])))
    if body.get("actual"):
        actual = body["actual"]
        took = "" if actual["seconds"] is None else f", {actual['seconds']:.1f} s"
        parts.append(
            Text(f"It became {actual['runs']} runs, {actual['tokens']:g} tokens{took}: cascade {actual['status']}.")
        )
    return Group(*parts)


def _takes(estimate: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for name in ("tokens", "cost", "seconds"):
        found = estimate[name]
        if found is None:
            yield name, "unknown", "unknown", ""
        else:
            left = f"{found['unknown_nodes']} without a record" if found["unknown_nodes"] else ""
            yield name, _amount(name, found["low"]), _amount(name, found["high"]), left


def _amount(name: str, value: float) -> str:
    if name == "cost":
        return f"${value / 1e6:.4f}"
    return f"{value:.1f}" if name == "seconds" else f"{value:.0f}"


def _tree(body: Mapping[str, Any]) -> Tree:
    from rich.tree import Tree  # noqa: PLC0415 - as above

    trunk = Tree(_roots(body), guide_style="dim")
    grown: dict[str, Tree] = {}
    for node in body["nodes"]:  # by level: whatever is above is there already
        above = next((grown[found] for found in node["waits_for"] if found in grown), trunk)
        grown[node["derivation_id"]] = above.add(_row(node))
    return trunk


def _roots(body: Mapping[str, Any]) -> str:
    shown = [f"{root['operation']} {short(root['title']) or root['id']}" for root in body["roots"][:3]]
    return "; ".join(shown) + (f" and {len(body['roots']) - 3} more" if len(body["roots"]) > 3 else "")  # noqa: PLR2004


def _row(node: Mapping[str, Any]) -> Text:
    from rich.text import Text  # noqa: PLC0415 - as above

    mark, style = MARKS[node["outlook"]]
    line = Text.assemble((f"{mark} ", style), short(node["provider_id"]))
    if node["anchor"]["title"] and not node["waits_for"]:
        line.append(f" of {short(node['anchor']['title'], 30)}", "dim")
    line.append(f"  {node['outlook']}", style)
    if node["state"] not in {"fresh", "new"}:
        line.append(f"  now {node['state']}", "dim")
    if node["reuses_run"]:
        line.append("  reuses what was paid for", "green")
    if node["needs_approval"]:
        line.append("  asks for approval", "yellow")
    for risk in node["at_risk"]:
        line.append(f"  edited by hand: {risk['on_conflict']}", "red")
    line.append(f"  {short(node['reason'], 80)}", "dim")
    return line
