"""Plans on the command line: said before, shown as a tree, and named by the change that follows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from cli.plans import drawn
from tests.cli.conftest import Studio

PROVIDER = """
id: cli-planned
name: Planned
workflow_id: wf-text-expansion
input_schema_id: text-input-v1
"""


def text_of(body: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(drawn(body))
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


async def test_a_change_is_planned_then_made_under_its_plan(studio: Studio, tmp_path: Path) -> None:
    made = await studio(
        "blob",
        "create",
        "--data",
        '{"content": "The ship sailed into the storm."}',
        "--schema",
        "text-input-v1",
        "--json",
    )
    blob = made.json["id"]
    asked = ["cascade", "plan", blob, "--data", '{"content": "The ship sailed out of the storm."}', "--json"]
    plan = (await studio(*asked)).json
    assert plan["counts"]["certain"] == 1
    drawing = text_of(plan)
    for word in ("edit: 1 certain, 3 possible", "text-expansion", "summarizer", "tokens", "unknown"):
        assert word in drawing
    shown = await studio(
        "cascade", "plan", blob, "--data", '{"content": "The ship sailed out of the storm."}', "--no-json"
    )
    assert "--plan" in shown.err
    done = await studio(
        "blob",
        "edit",
        blob,
        "--data",
        '{"content": "The ship sailed out of the storm."}',
        "--plan",
        plan["id"],
        "--json",
    )
    assert done.status == 0, done.err
    used = await studio("cascade", "planned", plan["id"], "--json")
    assert (used.json["status"], used.json["cascade_id"]) == ("used", done.json["cascade_id"])
    again = await studio(
        "blob",
        "edit",
        blob,
        "--data",
        '{"content": "Nothing sailed into any storm."}',
        "--plan",
        plan["id"],
        "--no-json",
    )
    assert again.status != 0
    assert "plan_used" in again.err
    file = tmp_path / "provider.yaml"
    file.write_text(PROVIDER)
    dry = await studio("provider", "register", str(file), "--dry-run", "--json")
    assert dry.status == 0, dry.out
    assert dry.json["kind"] == "provider"
    assert (await studio("provider", "get", "cli-planned", "--json")).status != 0
    assert (await studio("cascade", "plan", "--json")).status == 2  # nothing was said
