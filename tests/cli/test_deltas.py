"""``studio blob revert``, ``restore``, ``reset``, ``proposals``, ``accept``, ``reject``."""

from __future__ import annotations

from typing import Any

from tests.cli.conftest import Studio
from tests.cli.test_blobs import created


async def proposed(studio: Studio, blob_id: str, title: str) -> Any:
    ended = await studio(
        "api", "POST", f"/blobs/{blob_id}/deltas", "--data", f'{{"patch": {{"title": "{title}"}}, "proposed": true}}'
    )
    assert ended.status == 0, ended.out
    return ended.json


async def test_a_blob_goes_back_to_a_version_and_comes_back_from_deletion(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    await studio("blob", "edit", made["id"], "--content", "two")
    back = await studio("blob", "revert", made["id"], "1")
    assert (back.json["version"], back.json["content"]) == (3, "one")
    stale = await studio("blob", "revert", made["id"], "2", "--if-version", "1")
    assert (stale.status, stale.json["changes"][-1]["operation"]) == (5, "revert")
    await studio("blob", "rm", made["id"], "--yes")
    said = await studio("blob", "restore", made["id"], "--no-json")
    assert (said.status, said.out.strip(), "version 5" in said.err) == (0, made["id"], True)
    at_first = await studio("blob", "cat", made["id"], "--at", made["updated_at"])
    assert at_first.out == "one"
    history = await studio("blob", "history", made["id"])
    assert [row["operation"] for row in history.json["data"]] == ["create", "update", "revert", "delete", "restore"]


async def test_what_nobody_derives_cannot_be_reset(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    ended = await studio("blob", "reset", made["id"])
    assert (ended.status, ended.json["code"]) == (5, "no_machine_version")


async def test_proposals_are_listed_accepted_and_rejected(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    first, second = [await proposed(studio, made["id"], title) for title in ("A", "B")]
    listed = await studio("blob", "proposals", made["id"])
    assert {row["id"] for row in listed.json["data"]} == {first["id"], second["id"]}
    table = await studio("blob", "proposals", made["id"], "--no-json")
    assert (first["id"] in table.out, "/title" in table.out) == (True, True)
    accepted = await studio("blob", "accept", first["id"], "--no-json")
    assert (accepted.out.strip(), "is at version 2" in accepted.err) == (first["id"], True)
    clash = await studio("blob", "accept", second["id"])
    assert (clash.status, clash.json["code"]) == (5, "merge_conflict")
    said = await studio("blob", "accept", second["id"], "--no-json")
    assert "Clash at /title: A / B" in said.err
    assert "last_write_wins takes" in said.err
    rejected = await studio("blob", "reject", second["id"], "--no-json")
    assert (rejected.status, "stays as it is" in rejected.err) == (0, True)
    third = await proposed(studio, made["id"], "C")
    await studio("blob", "edit", made["id"], "--title", "D")
    taken = await studio("blob", "accept", third["id"], "--on-conflict", "last_write_wins")
    assert (taken.json["status"], taken.json["to_version"]) == ("applied", 4)
    assert (await studio("blob", "get", made["id"])).json["title"] == "C"
