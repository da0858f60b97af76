"""``studio demo``: a stack of its own, the book story on it, its claims held against the database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from cli.claims import Claim, check
from cli.evidence import Evidence, gather_evidence
from cli.exits import CONFLICT, FAILURE, OK
from cli.narration import Narrator
from cli.output import print_json, short
from cli.stage import Stage, StageFailed
from cli.story import BOOK, Story, StoryFailed, Teller
from devstack import control
from devstack.control import Event
from devstack.errors import DevstackError
from sdk.client import Studio
from sdk.problems import ApiProblem

DEFAULT_FOLDER = ".studio-demo"
PIPE_COLUMNS = 160


def run(*, svg: Path | None = None, reset: bool = False, as_json: bool = False) -> int:
    """Tell the story; return 0 if every claim holds, 1 if not (or the stack failed), 5 if it is being told already."""
    terminal = (sys.stderr if as_json else sys.stdout).isatty()
    console = Console(stderr=as_json, highlight=False, width=None if terminal else PIPE_COLUMNS)
    narrator = Narrator(console, picture=svg is not None)
    folder = Path(os.environ.get("STUDIO_STATE_DIR") or DEFAULT_FOLDER).absolute()
    if control.running(folder) is not None:
        narrator.say(f"A stack is running in {folder} already: choose another folder with STUDIO_STATE_DIR.")
        return CONFLICT
    try:
        if reset:
            control.reset(folder)
        return _staged(narrator, folder, svg=svg, as_json=as_json)
    except (StageFailed, StoryFailed, DevstackError, ApiProblem, TimeoutError) as error:
        reason = str(error) or "The work did not end in time."
        narrator.say(Text(f"failed: {reason}", "bold red"))
        narrator.say(f"Logs are in {_near(folder / 'logs')}. With --reset it begins anew, without its earlier data.")
        return FAILURE


def _staged(narrator: Narrator, folder: Path, *, svg: Path | None, as_json: bool) -> int:
    narrator.say("PostgreSQL, Temporal, NATS, S3 and a small language model start, all of them real …")
    with Stage(folder, lambda event: _started(narrator, event)) as stage:
        narrator.say(f"All up after {narrator.seconds:.1f} s.")
        try:
            claims = _performed(stage, narrator, svg=svg, as_json=as_json)
            _linger(narrator.console)
        finally:
            narrator.aside("Stopping everything …")
    narrator.aside(f"Its state is kept: STUDIO_STATE_DIR={_near(folder)} studio dev")
    return OK if all(claim.holds for claim in claims) else FAILURE


def _performed(stage: Stage, narrator: Narrator, *, svg: Path | None, as_json: bool) -> list[Claim]:
    """Tell the story, hold its claims against the database, show what there is to see."""
    story, evidence, claims = asyncio.run(_told(stage, narrator))
    endpoints = stage.endpoints
    _report(narrator, story, evidence, claims)
    for name, address in _addresses(endpoints, story).items():
        narrator.address(name, address)
    if svg is not None:
        narrator.save(svg, "make demo")
    if as_json:
        print_json(_json(narrator, claims, endpoints, story))
    return claims


async def _told(stage: Stage, narrator: Narrator) -> tuple[Story, Evidence, list[Claim]]:
    endpoints = stage.endpoints
    async with Studio(endpoints["api_url"], endpoints["api_key"]) as studio:
        user_id = (await studio.me())["user_id"]
        story = await Teller(studio, stage, narrator, user_id).tell()
        narrator.act("5  What this has claimed, held against the database")
        evidence = await gather_evidence(endpoints["database_url"], story)
        return story, evidence, await check(studio, story, evidence)


def _started(narrator: Narrator, event: Event) -> None:
    if event.event in {"ready", "failed"}:
        narrator.aside(f"  {event.event} {event.service} {event.detail}")


def _report(narrator: Narrator, story: Story, evidence: Evidence, claims: Sequence[Claim]) -> None:
    narrator.show(_claims(claims))
    narrator.show(_graph(story, evidence), in_picture=False)
    failed = sum(not claim.holds for claim in claims)
    verdict = f"{failed} of {len(claims)} claims do not hold" if failed else f"All {len(claims)} claims hold"
    narrator.say(Text(f"{verdict}, after {narrator.seconds:.0f} s.", "bold red" if failed else "bold green"))


def _claims(claims: Sequence[Claim]) -> RenderableType:
    made = Table(box=None, show_header=False, pad_edge=False)
    for claim in claims:
        mark = Text("✓", "green") if claim.holds else Text("✗", "bold red")
        made.add_row(mark, Text(claim.text), Text(claim.detail, "dim"))
    return made


def _graph(story: Story, evidence: Evidence) -> RenderableType:
    """Draw a row for each blob: its version, and what all its runs together took."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("chapter", "made by", "version", "runs", "seconds", "tokens", "model"):
        justify: JustifyMethod = "right" if name in {"version", "runs", "seconds", "tokens"} else "left"
        made.add_column(name, justify=justify, no_wrap=True)
    nodes = story.graph.nodes
    order = {chapter: index for index, chapter in enumerate(story.chapters)}
    sources = {blob: story.graph.sources(blob) for blob in nodes}
    for blob in sorted(nodes, key=lambda b: (len(sources[b]) > 1, order.get(sources[b][0], 0), nodes[b]["level"])):
        node = nodes[blob]
        runs = [row for row in evidence.runs if str(row["derivation_id"]) == node["derivation_id"]]
        mine = node["provider_id"] is None
        title = short(node["title"], 32) if mine or len(sources[blob]) > 1 else ""
        who = Text("a person", "bold") if mine else Text(node["provider_id"])
        made.add_row(Text(title), who, f"v{node['version']}", *([] if mine else _cost(runs)))
    return made


def _cost(runs: Sequence[Mapping[str, Any]]) -> tuple[str, str, str, str]:
    seconds = sum((row["ended_at"] - row["started_at"]).total_seconds() for row in runs if row["ended_at"])
    tokens = sum(int(row["usage"].get("total_tokens") or 0) for row in runs)
    models = dict.fromkeys(name for row in runs for name in str(row["usage"].get("model") or "").split(", ") if name)
    return str(len(runs)), f"{seconds:.1f}", str(tokens), ", ".join(models)


def _addresses(endpoints: Mapping[str, Any], story: Story) -> dict[str, str]:
    cascade = list(story.edits)[-1]
    ui = f"{endpoints['temporal_ui_url']}/namespaces/{endpoints['temporal_namespace']}/workflows/cascade:{cascade}"
    nats = endpoints["nats_url"]
    return {
        "API": endpoints["api_url"],
        "Last cascade in Temporal": ui,
        "S3": f"{endpoints['s3_endpoint']}/{endpoints['s3_bucket']}",
        "NATS": f"{nats.partition('://')[0]}://{nats.rpartition('@')[2]}",
        "Keys": _near(Path(endpoints["state_dir"]) / "endpoints.json"),
        "Logs": _near(Path(endpoints["state_dir"]) / "logs"),
    }


def _json(narrator: Narrator, claims: Sequence[Claim], endpoints: Mapping[str, Any], story: Story) -> dict[str, Any]:
    return {
        "book": BOOK,
        "holds": all(claim.holds for claim in claims),
        "claims": [{"claim": claim.text, "holds": claim.holds, "detail": claim.detail} for claim in claims],
        "nodes": list(story.graph.nodes.values()),
        "addresses": _addresses(endpoints, story),
        "seconds": round(narrator.seconds, 1),
    }


def _near(path: Path) -> str:
    """Return a path as a person here would type it."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _linger(console: Console) -> None:
    """On a terminal, keep everything running until Enter."""
    if console.is_terminal and sys.stdin.isatty():
        with contextlib.suppress(EOFError):
            console.input(Text("Everything still runs: look around, then press Enter to stop it. ", "bold"))
