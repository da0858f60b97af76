import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cli.conflicts import clashes
from cli.history import who
from tests.cli.conftest import Studio


async def created(studio: Studio, *arguments: str) -> Any:
    ended = await studio("blob", "create", *arguments)
    assert ended.status == 0, ended.out
    return ended.json


async def test_a_created_blob_is_printed_as_the_api_answers_it_and_can_be_read_back(studio: Studio) -> None:
    made = await created(studio, "--content", "The ship sailed.", "--title", "Storm", "--tag", "sea", "--tag", "draft")
    read = await studio("blob", "get", made["id"])
    assert (made["version"], made["title"], made["tags"]) == (1, "Storm", ["sea", "draft"])
    assert read.json == made


async def test_content_and_data_come_from_a_file_or_from_stdin(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "chapter.txt").write_text("From a file.")
    from_file = await created(studio, "--content", "@chapter.txt")
    piped = await studio("blob", "create", "--data", "-", stdin='{"a": 1}')
    missing = await studio("blob", "create", "--content", "@absent.txt")
    assert (from_file["content"], piped.json["data"]) == ("From a file.", {"a": 1})
    assert (missing.status, missing.out) == (2, "")


@pytest.mark.parametrize("arguments", [(), ("--content", "a", "--data", "1"), ("--data", "{")])
async def test_what_makes_no_blob_is_a_usage_error(studio: Studio, arguments: tuple[str, ...]) -> None:
    assert (await studio("blob", "create", *arguments)).status == 2


async def test_people_get_the_id_on_stdout_and_the_next_command_on_stderr(studio: Studio) -> None:
    ended = await studio("blob", "create", "--content", "x", "--no-json")
    blob_id = ended.out.strip()
    cascade_id = ended.err.strip().rpartition("studio cascade watch ")[2]
    assert (await studio("blob", "get", blob_id)).status == 0
    assert (await studio("cascade", "get", cascade_id)).json["target_id"] == blob_id


async def test_cat_prints_the_content_byte_for_byte_at_any_version(studio: Studio) -> None:
    made = await created(studio, "--content", "Grüße\n\tan alle")
    await studio("blob", "edit", made["id"], "--content", "Neu")
    assert (await studio("blob", "cat", made["id"])).out == "Neu"
    assert (await studio("blob", "cat", made["id"], "--version", "1")).out == "Grüße\n\tan alle"


async def test_edit_sets_fields_and_says_the_new_version(studio: Studio) -> None:
    made = await created(studio, "--data", '{"title": "Old", "pages": 1}')
    edited = await studio(
        "blob", "edit", made["id"], "--set", "/data/title=New", "--set", "/data/pages=2", "--title", "T"
    )
    assert (edited.json["version"], edited.json["title"]) == (2, "T")
    assert edited.json["data"] == {"title": "New", "pages": 2}


async def test_edit_takes_json_patches_and_merge_patches(studio: Studio) -> None:
    made = await created(studio, "--data", '{"a": 1, "b": 2}')
    await studio("blob", "edit", made["id"], "--patch", '{"data": {"b": null}}')
    edited = await studio("blob", "edit", made["id"], "--patch", '[{"op": "test", "path": "/data/a", "value": 2}]')
    assert (edited.status, edited.json["code"]) == (5, "test_failed")
    assert (await studio("blob", "get", made["id"])).json["data"] == {"a": 1}


async def test_an_edit_of_an_older_version_is_a_conflict_and_changes_nothing(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    await studio("blob", "edit", made["id"], "--content", "two")
    stale = await studio("blob", "edit", made["id"], "--content", "three", "--if-version", "1")
    assert (stale.status, stale.json["code"], stale.json["current_version"]) == (5, "precondition_failed", 2)
    assert (await studio("blob", "cat", made["id"])).out == "two"


async def test_an_edit_of_an_older_version_can_be_merged_and_says_where_it_clashes(studio: Studio) -> None:
    made = await created(studio, "--content", "one story")
    await studio("blob", "edit", made["id"], "--content", "two story")
    arguments = ("blob", "edit", made["id"], "--if-version", "1", "--on-conflict", "merge", "--no-json")
    merged = await studio(*arguments, "--content", "one story more")
    assert (merged.status, "version 3" in merged.err) == (0, True)
    clash = await studio(*arguments, "--content", "three story")
    assert "Clash at /content: two / three" in clash.err
    assert (await studio("blob", "cat", made["id"])).out == "two story more"
    offer = clash.err.partition("studio blob accept ")[2].split()[0]
    assert (await studio("blob", "accept", offer)).status == 0
    assert (await studio("blob", "cat", made["id"])).out.startswith("three story")


async def test_people_read_who_changed_what_meanwhile_and_how_to_go_on(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    await studio("blob", "edit", made["id"], "--content", "two")
    await studio("blob", "edit", made["id"], "--title", "Two")
    stale = await studio("blob", "edit", made["id"], "--content", "three", "--if-version", "1", "--no-json")
    assert (stale.status, stale.out) == (5, "")
    second, third, look, way = stale.err.splitlines()[1:5]
    assert second.startswith("  version 2: update by you, 20")
    assert (second.endswith(": /content"), third.endswith(": /title")) == (True, True)
    assert look == f"  look: studio blob diff {made['id']} --from 1"
    assert "--on-conflict merge" in way


async def test_a_clash_shows_what_differs_of_each_side_and_where_the_loser_is(studio: Studio) -> None:
    head = "# The long text\n\nThat begins the same on both sides, for long, and {} ends the same."
    made = await created(studio, "--content", head.format("once"))
    await studio("blob", "edit", made["id"], "--content", head.format("here"))
    arguments = ("--if-version", "1", "--on-conflict", "last_write_wins", "--no-json")
    won = await studio("blob", "edit", made["id"], "--content", head.format("there"), *arguments)
    assert won.status == 0
    clash = next(line for line in won.err.splitlines() if line.startswith("Clash"))
    assert ("here" in clash, "there" in clash, "long text" in clash) == (True, True, False)
    kept = won.err.partition("studio api GET /deltas/")[2].split()[0]
    assert (await studio("api", "GET", f"/deltas/{kept}")).json["status"] == "rejected"


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("a b c d e f g", "a b c X e f g", "…b c d e f… / …b c X e f…"),
        ("a b c", "a b c d", "…b c / …b c d"),
        ("a  b", "a b", "only white space differs"),
        ({"k": 1}, None, '{"k": 1} / null'),
        ("", "x", "(nothing) / x"),
    ],
    ids=["middle", "more", "space", "values", "empty"],
)
def test_two_sides_are_cut_to_where_they_differ(ours: object, theirs: object, said: str) -> None:
    assert list(clashes([{"pointer": "/p", "ours": ours, "theirs": theirs}])) == [f"Clash at /p: {said}"]


async def test_an_edit_for_another_kind_of_blob_says_which_it_is(studio: Studio) -> None:
    text, value = await created(studio, "--content", "one"), await created(studio, "--data", '{"a": {}}')
    wrong = await studio("blob", "edit", text["id"], "--data", '{"a": 1}')
    assert (wrong.status, wrong.out, "use --content" in wrong.err) == (2, "", True)
    other = await studio("blob", "edit", value["id"], "--content", "two")
    assert (other.status, "use --data" in other.err) == (2, True)
    deeper = await studio("blob", "edit", value["id"], "--set", "/data/data/x=1")
    assert (deeper.status, deeper.json["code"]) == (1, "path_not_found")


async def test_without_a_terminal_an_edit_has_to_say_what_changes(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    for arguments in ((), ("--set", "title=x"), ("--patch", "[]", "--title", "x")):
        assert (await studio("blob", "edit", made["id"], *arguments)).status == 2


async def test_history_lists_every_version_with_its_cause(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    await studio("blob", "edit", made["id"], "--content", "two")
    rows = (await studio("blob", "history", made["id"])).json["data"]
    assert [(row["version"], row["operation"]) for row in rows] == [(1, "create"), (2, "update")]
    drawn = (await studio("blob", "history", made["id"], "--no-json")).out
    assert rows[1]["cascade_id"] in drawn
    assert "update" in drawn
    await studio("blob", "revert", made["id"], "1")
    first, last = (await studio("blob", "history", made["id"], "--no-json")).out.splitlines()[1::2]
    assert (first.split()[-1], last.split()[-1], "revert (content of 1)" in last) == ("you", "you", True)
    assert rows[0]["applied_at"][:10] in first
    assert datetime.now().astimezone().strftime(" %Z ") in first


def test_who_decided_and_who_wrote_are_both_named() -> None:
    assert who({"actor": "user:7", "provider_id": "text-expansion"}) == "accepted by you, written by text-expansion"
    assert who({"actor": "provider:text-expansion", "provider_id": "text-expansion"}) == "text-expansion"
    assert who({"actor": "user:7", "provider_id": None}) == "you"


async def test_lists_filter_page_and_go_on(studio: Studio) -> None:
    for number in range(3):
        await created(studio, "--content", f"{number}", "--tag", "counted")
    await created(studio, "--content", "other")
    first = (await studio("blob", "list", "--tag", "counted", "--limit", "2")).json
    rest = (await studio("blob", "list", "--tag", "counted", "--limit", "2", "--cursor", first["next_cursor"])).json
    every = (await studio("blob", "list", "--tag", "counted", "--all")).json
    assert [row["content"] for row in first["data"] + rest["data"]] == ["2", "1", "0"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert every == {"data": first["data"] + rest["data"], "next_cursor": None, "has_more": False}


async def test_a_list_for_people_shows_whole_ids_and_the_cursor(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await created(studio, "--content", f"{number}", "--title", "long " * 40) for number in range(2)]
    monkeypatch.setenv("COLUMNS", "60")
    drawn = (await studio("blob", "list", "--limit", "1", "--no-json")).out
    assert made[1]["id"] in drawn
    assert "more: --cursor " in drawn


async def test_dag_is_a_tree_for_people_and_the_answer_itself_for_programs(studio: Studio) -> None:
    made = await created(studio, "--content", "root", "--title", "Root")
    child = await created(studio, "--content", "leaf", "--title", "Leaf", "--parent", made["id"])
    body = (await studio("blob", "dag", made["id"])).json
    drawn = (await studio("blob", "dag", made["id"], "--no-json")).out
    assert [node["blob_id"] for node in body["nodes"]] == [made["id"], child["id"]]
    assert [line.split()[0] for line in drawn.splitlines() if "Root" in line] == ["◆"]
    assert child["id"] in drawn


async def test_nothing_is_deleted_without_yes_when_nobody_can_be_asked(studio: Studio) -> None:
    made = await created(studio, "--content", "x")
    refused = await studio("blob", "rm", made["id"])
    assert (refused.status, refused.out) == (2, "")
    assert "--yes" in refused.err
    assert (await studio("blob", "get", made["id"])).status == 0


async def test_a_deleted_blob_is_gone_but_its_versions_are_not(studio: Studio) -> None:
    made = await created(studio, "--content", "x")
    removed = await studio("blob", "rm", made["id"], "--yes")
    assert (removed.status, removed.json["deleted"], removed.json["version"]) == (0, True, 2)
    gone = await studio("blob", "get", made["id"])
    assert (gone.status, gone.json["code"]) == (6, "deleted")
    assert (await studio("blob", "get", made["id"], "--version", "1")).json["content"] == "x"


async def test_control_characters_of_a_title_do_not_reach_the_terminal(studio: Studio) -> None:
    made = await created(studio, "--data", json.dumps({"text": "\u001b[2Jboo"}))
    assert "\u001b" not in (await studio("blob", "get", made["id"], "--no-json")).out
    assert "\u001b" not in (await studio("blob", "list", "--no-json")).out
