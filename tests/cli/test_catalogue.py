import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Studio

WORKFLOW = """
id: wf-shout
name: Shout
steps:
  - id: count
    type: computation
    operations:
      - words: len($.data.content.split())
  - id: shouted
    type: state-update
    operation: create-blob
    schema_id: blob-v1
    data_map:
      words: $.words
"""
PROVIDER = """
processor:
  id: shouter
  name: Shouter
  input_schema_id: shout-v1
  output_schema_id: blob-v1
  workflow_id: wf-shout
"""
SCHEMA = {"name": "shout", "definition": {"type": "object", "required": ["content"]}}


async def test_schema_workflow_and_provider_are_registered_from_files_and_switched(
    studio: Studio, tmp_path: Path
) -> None:
    (tmp_path / "shout.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "wf.yaml").write_text(WORKFLOW)
    (tmp_path / "provider.yaml").write_text(PROVIDER)
    assert (await studio("schema", "register", "shout.json")).json["schema_id"] == "shout-v1"
    assert (await studio("workflow", "register", "wf.yaml")).json["version"] == 1
    registered = await studio("provider", "register", "provider.yaml")
    assert (registered.status, registered.json["id"], registered.json["active"]) == (0, "shouter", True)
    assert (await studio("provider", "pause", "shouter")).json["active"] is False
    assert (await studio("provider", "get", "shouter")).json["active"] is False
    assert (await studio("provider", "activate", "shouter")).json["active"] is True
    again = await studio("workflow", "register", "wf.yaml", "--no-json")
    assert "nothing changed" in again.err
    assert (again.out, "still uses" in again.err) == ("wf-shout\n", False)
    (tmp_path / "wf.yaml").write_text(WORKFLOW.replace("words: len", "count: len").replace("$.words", "$.count"))
    newer = await studio("workflow", "register", "wf.yaml", "--no-json")
    assert "Provider shouter still uses version 1 of workflow wf-shout, the newest is 2: register" in newer.err


async def test_an_instance_is_configured_bit_by_bit_and_given_back_to_its_provider(studio: Studio) -> None:
    async def configured(*options: str) -> Any:
        return await studio("provider", "configure", "text-expansion", *options)

    first = await configured("--set", "tone=warm", "--set", 'depth={"a": 1}', "--quiet", "2s", "--max-wait", "500ms")
    assert (first.status, first.json["errors"][0]["pointer"]) == (1, "/debounce/max_wait")
    done = await configured(
        "--set", "tone=warm", "--set", "depth=2", "--quiet", "2s", "--max-wait", "1m", "--supersede", "cancel"
    )
    assert done.json["settings"].items() >= {"tone": "warm", "depth": 2}.items()
    assert (done.json["debounce"], done.json["supersede"]) == ({"quiet": 2, "max_wait": 60}, "cancel")
    more = await configured("--set", "depth=3", "--inactive", "--on-parent-failure", "skip", "--on-conflict", "wait")
    assert more.json["settings"].items() >= {"tone": "warm", "depth": 3}.items()
    assert (more.json["active"], more.json["on_parent_failure"], more.json["on_conflict"]) == (False, "skip", "wait")
    assert more.json["debounce"] == {"quiet": 2, "max_wait": 60}
    assert "2 s quiet, 60 s at most" in (await studio("provider", "instance", "text-expansion", "--no-json")).out
    stale = await configured("--active", "--if-version", str(done.json["version"]))
    assert (stale.status, stale.json["code"]) == (5, "precondition_failed")
    back = await configured("--active", "--quiet", "provider", "--supersede", "provider", "--if-version",
                            str(more.json["version"]))  # fmt: skip
    assert (back.json["active"], back.json["debounce"], back.json["supersede"]) == (True, None, "finish")


@pytest.mark.parametrize(
    "options",
    [(), ("--max-wait", "3s"), ("--quiet", "soon"), ("--quiet", "provider", "--max-wait", "3s"), ("--set", "tone")],
)
async def test_what_configures_nothing_or_nonsense_is_a_usage_error(studio: Studio, options: tuple[str, ...]) -> None:
    assert (await studio("provider", "configure", "text-expansion", *options)).status == 2


async def test_a_workflow_with_faults_is_exit_1_and_names_them_all(studio: Studio) -> None:
    bad = WORKFLOW.replace("computation", "computing").replace("blob-v1", "nowhere-v1")
    ended = await studio("workflow", "validate", "-", stdin=bad)
    assert ended.status == 1
    pointers = {error["pointer"] for error in ended.json["errors"]}
    assert {"/steps/0/type", "/steps/1/schema_id"} <= pointers
    told = await studio("workflow", "validate", "-", "--no-json", stdin=bad)
    assert all(pointer in told.err for pointer in pointers)
    refused = await studio("workflow", "register", "-", stdin=bad)
    assert (refused.status, len(refused.json["errors"])) == (1, len(ended.json["errors"]))


async def test_a_provider_is_checked_against_what_is_registered_and_nothing_is_kept(studio: Studio) -> None:
    known = (
        PROVIDER.replace("shout-v1", "concept-v1").replace("wf-shout", "wf-summary").replace("blob-v1", "summary-v1")
    )
    bad = await studio("provider", "validate", "-", stdin=PROVIDER)
    good = await studio("provider", "validate", "-", stdin=known)
    assert (bad.status, {error["code"] for error in bad.json["errors"]}) == (1, {"unknown_schema", "unknown_workflow"})
    assert (good.status, good.json) == (0, {"valid": True, "errors": []})
    assert (await studio("provider", "get", "shouter")).status == 6


async def test_a_good_workflow_validates_and_is_not_registered(studio: Studio) -> None:
    assert (await studio("workflow", "validate", "-", stdin=WORKFLOW)).json["valid"] is True
    assert (await studio("workflow", "get", "wf-shout")).status == 6


async def test_values_are_held_against_a_schema(studio: Studio) -> None:
    good = await studio("schema", "validate", "concept-v1", '{"title": "The Storm"}')
    bad = await studio("schema", "validate", "concept-v1", '{"title": 3}')
    assert (good.status, good.json["valid"]) == (0, True)
    assert (bad.status, bad.json["errors"][0]["pointer"]) == (1, "/title")


async def test_the_built_in_ones_are_listed_and_shown(studio: Studio) -> None:
    providers = {row["id"] for row in (await studio("provider", "list")).json["data"]}
    assert {"outline-generator", "text-expansion", "book-compiler"} <= providers
    for noun, name in (("provider", "summarizer"), ("workflow", "wf-summary"), ("schema", "summary-v1")):
        assert name in (await studio(noun, "list", "--no-json")).out
        assert name in (await studio(noun, "get", name, "--no-json")).out


async def test_process_answers_with_the_cascade_to_watch(studio: Studio) -> None:
    blob = (await studio("blob", "create", "--data", '{"title": "The Storm"}', "--schema", "concept-v1")).json
    asked = await studio("provider", "process", "outline-generator", blob["id"])
    assert asked.status == 0
    assert (await studio("cascade", "get", asked.json["cascade_id"])).json["cause"] == "process"
    assert (await studio("provider", "process", "nobody", blob["id"])).status == 6


async def test_a_file_that_is_not_there_is_a_usage_error(studio: Studio) -> None:
    assert (await studio("schema", "register", "absent.json")).status == 2
