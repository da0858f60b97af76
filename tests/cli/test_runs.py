from uuid import UUID

from storage.contents import Contents
from storage.database import Database
from tests.api.schedule import claim, plan_all, schedule_of
from tests.cli.conftest import Studio
from tests.cli.test_blobs import created
from tests.conftest import Person

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


async def test_runs_are_listed_and_an_unknown_one_is_not_found(studio: Studio) -> None:
    assert (await studio("run", "list", "--status", "failed")).json == {
        "data": [],
        "next_cursor": None,
        "has_more": False,
    }
    assert "none" in (await studio("run", "list", "--no-json")).out
    assert (await studio("run", "get", UNKNOWN)).status == 6
    assert (await studio("run", "list", "--status", "dancing")).status == 1


async def test_events_go_on_from_a_cursor(studio: Studio) -> None:
    first = await created(studio, "--content", "one")
    seen = (await studio("events", "list", "--type", "blob.created")).json
    assert [event["subject"] for event in seen["data"]] == [f"blobs/{first['id']}"]
    second = await created(studio, "--content", "two")
    later = (await studio("events", "list", "--type", "blob.created", "--cursor", seen["next_cursor"])).json
    assert [event["subject"] for event in later["data"]] == [f"blobs/{second['id']}"]
    assert f"blobs/{second['id']}" in (await studio("events", "list", "--no-json")).out


async def test_a_cascade_that_has_not_ended_is_watched_until_the_timeout_and_is_retryable(studio: Studio) -> None:
    made = await created(studio, "--content", "one")  # no worker runs here, so it stays pending
    ended = await studio("cascade", "watch", made["cascade_id"], "--timeout", "0.5")
    assert (ended.status, ended.out) == (7, "")
    assert "source" in ended.err


async def test_a_blob_is_watched_until_the_timeout_too_and_an_unknown_one_is_not_found(studio: Studio) -> None:
    made = await created(studio, "--content", "one")
    assert (await studio("blob", "watch", made["id"], "--timeout", "0.3")).status == 7
    assert (await studio("blob", "watch", UNKNOWN)).status == 6


async def test_cascades_are_listed_by_status_and_shown(studio: Studio) -> None:
    made = await created(studio, "--content", "one", "--title", "Storm")
    rows = (await studio("cascade", "list", "--status", "pending", "--blob", made["id"])).json["data"]
    assert [row["id"] for row in rows] == [made["cascade_id"]]
    assert "Storm" in (await studio("cascade", "get", made["cascade_id"], "--no-json")).out
    assert made["cascade_id"] in (await studio("cascade", "list", "--no-json")).out


async def test_a_cascade_shows_the_edits_that_it_folded_and_those_whose_work_it_took_over(
    studio: Studio, user: Person, database: Database, contents: Contents
) -> None:
    schedule = schedule_of(database, contents)
    blob = await created(studio, "--data", '{"content": "The ship sailed."}', "--schema", "text-input-v1")
    await plan_all(database, schedule, user.user_id)
    edited = [
        (await studio("blob", "edit", blob["id"], "--set", f"/data/content=The ship {text}.")).json
        for text in ("sank", "burned")
    ]
    assert edited[0]["cascade_id"] == edited[1]["cascade_id"] != blob["cascade_id"]
    await plan_all(database, schedule, user.user_id)
    newest = await studio("cascade", "get", edited[1]["cascade_id"])
    assert [row["to_version"] for row in newest.json["deltas"]] == [2, 3]
    assert [row["id"] for row in newest.json["supersedes"]] == [blob["cascade_id"]]
    told = (await studio("cascade", "get", edited[1]["cascade_id"], "--no-json")).out
    assert [told.count(what) for what in ("folded in", "took over")] == [2, 1]
    assert "update v3" in told
    assert "$0.000000" in told
    await claim(schedule, user.user_id, blob["cascade_id"])
    before = await studio("cascade", "get", blob["cascade_id"])
    assert (before.json["status"], before.json["superseded_by"]) == ("superseded", edited[1]["cascade_id"])
    assert edited[1]["cascade_id"] in (await studio("cascade", "get", blob["cascade_id"], "--no-json")).out
    queue = await studio("queue", "--no-json")
    assert "text-expansion" in queue.out
    assert "ready" in queue.err
    assert (await studio("queue", "--everybody")).json["required_scope"] == "admin"


async def test_api_reaches_any_operation_and_prints_what_it_answers(studio: Studio) -> None:
    made = await studio("api", "POST", "/blobs", "--data", '{"content": "x"}')
    blob_id = made.json["id"]
    assert (await studio("api", "GET", f"/blobs/{blob_id}/content")).out == "x"
    assert (await studio("api", "GET", f"/api/v1/blobs/{blob_id}")).json["blob_id"] == blob_id
    refused = await studio("api", "PATCH", f"/blobs/{blob_id}", "-d", "[]", "--type", "application/json-patch+json")
    assert (refused.status, refused.json["code"]) == (5, "precondition_required")
    gone = await studio("api", "DELETE", f"/blobs/{blob_id}", "--header", 'If-Match: "v1"')
    assert (gone.status, gone.out) == (0, "")
    assert (await studio("api", "GET", "/blobs", "--header", "nonsense")).status == 2


async def test_what_waits_is_listed_approved_cancelled_and_retried(
    studio: Studio, user: Person, database: Database, contents: Contents
) -> None:
    schedule = schedule_of(database, contents)
    made = await created(studio, "--schema", "text-input-v1", "--data", '{"content": "The ship sailed."}')
    await plan_all(database, schedule, user.user_id)
    run, *_ = [str(found) for found in await claim(schedule, user.user_id, made["cascade_id"])]
    await schedule.park(user.user_id, UUID(run), "review", 1, "May this be published?")
    assert "May this be" in (await studio("approvals", "--no-json")).out
    assert [row["run_id"] for row in (await studio("approvals")).json["data"]] == [run]
    wrong = await studio("run", "approve", run, "--step", "edit", "--no-json")
    assert (wrong.status, "The run waits at its step review, not at edit" in wrong.err) == (5, True)
    assert "studio approvals" in wrong.err
    assert "--comment: " in (await studio("run", "reject", run, "--comment", "", "--no-json")).err
    approved = await studio("run", "approve", run, "--comment", "Yes.", "--step", "review")
    assert (approved.json["status"], approved.json["outcome"]) == ("running", "done")
    told = (await studio("run", "get", run, "--no-json")).out
    assert f"review was approved by user:{user.user_id}" in told
    assert ": Yes." in told
    assert (await studio("run", "reject", run, "--comment", "No.")).status == 5
    assert (await studio("run", "cancel", run)).json["status"] == "cancelled"
    assert (await studio("run", "retry", run)).json["id"] == made["cascade_id"]
    assert (await studio("cascade", "cancel", made["cascade_id"])).json["status"] == "cancelled"
    assert (await studio("cascade", "retry", made["cascade_id"])).json["outcome"] == "done"
