"""``studio blob why``, ``studio derivation why``, ``studio provider explain``: words, and a tree down to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, clean, details, outline, short, show
from cli.problems import command_of
from cli.session import talk

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.tree import Tree

derivations = typer.Typer(no_args_is_help=True, help="Derivations: who makes what of which inputs, and why.")

Depth = Annotated[int | None, typer.Option(min=0, help="Steps down to what it was made of.")]
DerivationId = Annotated[str, typer.Argument(metavar="DERIVATION", help="Its id.")]


def blob_why(
    blob: Annotated[str, typer.Argument(metavar="BLOB", help="Its id.")],
    version: Annotated[int | None, typer.Option("--version", min=1, help="Why this version exists.")] = None,
    depth: Depth = None,
    as_json: AsJson = None,
) -> None:
    """Say why a version exists, down to the people who caused it; how it stands; what would change that."""
    show(as_json, talk(lambda studio: studio.why(blob, version=version, depth=depth)).body, _of_blob)


def provider_explain(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Its id.")],
    blob: Annotated[str, typer.Argument(metavar="BLOB", help="The blob to hold it against.")],
    as_json: AsJson = None,
) -> None:
    """Say whether a provider reacts to a blob, predicate by predicate."""
    show(as_json, talk(lambda studio: studio.explain(provider, blob)).body, _explained)


@derivations.command()
def get(derivation: DerivationId, as_json: AsJson = None) -> None:
    """Show a derivation: its inputs and outputs, its definition, its state."""
    show(as_json, talk(lambda studio: studio.get_derivation(derivation)).body, _shown)


@derivations.command()
def why(derivation: DerivationId, depth: Depth = None, as_json: AsJson = None) -> None:
    """Say why a derivation and its outputs are as they are, and what would change that."""
    show(as_json, talk(lambda studio: studio.why_derivation(derivation, depth=depth)).body, _of_derivation)


def _of_blob(body: Any) -> RenderableType:
    return _told(body, [body["because"]])


def _of_derivation(body: Any) -> RenderableType:
    return _told(body, [output["because"] for output in body["outputs"]])


def _told(body: Any, because: list[Any]) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - rich is for people
    from rich.text import Text  # noqa: PLC0415 - as above
    from rich.tree import Tree  # noqa: PLC0415 - as above

    parts: list[RenderableType] = [Text(clean(body["words"]))]
    known = [one for one in because if one]
    if known:
        trunk = Tree("", guide_style="dim", hide_root=True)
        for one in known:
            _grow(trunk, one)
        parts += ["", outline(trunk)]
    if body["truncated"]:
        parts.append(Text("… and more than can be told: ask about an input", style="dim"))
    if body["changes"]:
        parts += ["", Text("What would change it:", style="dim")]
        parts += [_change(one) for one in body["changes"]]
    return Group(*parts)


def _change(one: Mapping[str, Any]) -> RenderableType:
    """Draw one action, whole: its command is pasted."""
    from rich.text import Text  # noqa: PLC0415 - rich is for people

    return Text(f"  {clean(one['reason'])}\n    {clean(command_of(one))}")


def _grow(branch: Tree, because: Mapping[str, Any]) -> None:
    """Draw one version, and below it what it was made of; the answer's depth bounds this."""
    grown = branch.add(_line(because))
    for source in because["inputs"]:
        if source["because"]:
            _grow(grown, source["because"])
        else:
            grown.add(_leaf(source))
    if because["inputs_total"] > len(because["inputs"]):
        grown.add(f"… {because['inputs_total'] - len(because['inputs'])} more inputs")
    if because.get("before"):
        _grow(grown, because["before"])


def _line(because: Mapping[str, Any]) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - rich is for people

    run, cause = because["run"], because["cause"]
    line = Text.assemble(("◆ " if run is None else "● ", "bold" if run is None else "green"), short(because["name"]))
    line.append(f"  v{because['version']}", "dim")
    if run is None:
        line.append(f"  {short(because['actor']['name'])}: {because['operation']}", "cyan")
    else:
        spent = [run["model"], f"{run['tokens']} tokens" if run["tokens"] else None, _took(run)]
        line.append(f"  {clean(run['provider_name'] or run['provider_id'])}", "green")
        line.append("  " + ", ".join(clean(part) for part in spent if part), "dim")
        line.append(f"  because {clean(cause['words'])}" if cause else "")
    line.append(f"  {clean(because['blob_id'])}", "dim")
    return line


def _leaf(source: Mapping[str, Any]) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415 - rich is for people

    return Text(f"… {short(source['name'])}  v{source['version']}  {clean(source['blob_id'])}", style="dim")


def _took(run: Mapping[str, Any]) -> str | None:
    return None if run["duration_ms"] is None else f"{run['duration_ms'] / 1000:.2f} s"


def _explained(body: Any) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - rich is for people
    from rich.text import Text  # noqa: PLC0415 - as above

    rows = [
        Text(f"{'yes' if one['ok'] else 'no':4} {clean(one['name']):<9} {clean(one['words'])}")
        for one in body["predicates"]
    ]
    return Group(Text(clean(body["words"])), "", *rows)


def _shown(body: Any) -> RenderableType:
    flat = {
        **body,
        "anchor": f"{body['anchor']['kind']} {body['anchor']['id']}",
        "reads": [f"{row['blob_id']} v{row['planned_version']}" for row in body["inputs"]],
        "makes": [f"{row['blob_id']} v{row['version']}" for row in body["outputs"]],
    }
    names = "id provider_id state reason anchor reads makes definition_digest settings_digest execution attempt run_id"
    return details(f"{names} cascade_id created_at settled_at")(flat)
