"""Why, from the API down to the rows: chains that end at people, states that agree with the DAG, who reacts to what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
from jsonschema import Draft202012Validator

from domain.why_actions import changes
from storage import whys
from storage.schedule import Repeats
from tests.conftest import BASE
from tests.domain.test_whys import EVERY_STATE, ROW, WHEN, held
from tests.storage.engine import Engine, schedule_of

UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


async def why(engine: Engine, blob_id: object, query: str = "") -> Any:
    return await engine.ask("GET", f"/blobs/{blob_id}/why{query}")


async def agrees(engine: Engine, blob_id: UUID, output: UUID) -> Any:
    """The explanation of an output, which says of its state what the DAG says."""
    nodes = (await engine.ask("GET", f"/blobs/{blob_id}/dag"))["nodes"]
    [node] = [node for node in nodes if node["blob_id"] == str(output)]
    found = await why(engine, output)
    assert (found["now"]["state"], found["now"]["reason"]) == (node["state"], node["reason"])
    derivation = await engine.ask("GET", f"/derivations/{node['derivation_id']}")
    assert (derivation["state"], derivation["reason"]) == (node["state"], node["reason"])
    assert [blocker["blob_id"] for blocker in found["now"]["blocked_by"]] == node["blocked_by"]
    return found


def people(because: Any) -> Iterator[str]:
    """The people's versions that an explanation ends at."""
    if because is None:
        return
    if because["run"] is None:
        yield because["words"]
    for one in [*(source["because"] for source in because["inputs"]), because.get("before")]:
        yield from people(one)


async def chained(engine: Engine) -> tuple[UUID, UUID, UUID]:
    """A blob, what is made of it, and what is made of that."""
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    await engine.rest()
    return blob, await engine.output("one"), await engine.output("two")


async def test_a_version_leads_down_to_the_people_who_caused_it(engine: Engine) -> None:
    blob, middle, last = await chained(engine)
    await engine.edit(middle, "mine")
    await engine.rest()
    found = await agrees(engine, blob, last)
    because = found["because"]
    assert (found["version"], because["cause"]["kind"], because["cause"]["delta"]["blob_id"]) == (
        2,
        "edit",
        str(middle),
    )
    [source] = because["inputs"]
    assert (source["blob_id"], source["version"], source["because"]["run"]) == (str(middle), 2, None)
    assert len(list(people(because))) == 2  # who edited the middle, and who wrote what that was made of
    before = source["because"]["before"]
    assert before["run"]["definition"]["version"] == 1
    assert before["inputs"][0]["because"]["operation"] == "create"
    assert (await engine.http.get(source["why_url"])).json()["because"]["delta_id"] == source["because"]["delta_id"]


async def test_a_merge_says_whose_words_it_kept(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", also={"more": "$.data.text"})
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, data={"text": "mine", "more": "a"})
    await engine.rest()
    await engine.edit(blob, "b")
    await engine.rest()
    merge = (await why(engine, output))["because"]["merge"]
    assert (merge["pure"], [one["version"] for one in merge["kept"]], merge["conflicts"]) == (
        False,
        [2],
        ["/data/text"],
    )


async def test_an_older_version_has_its_own_reason_and_depth_is_bounded(engine: Engine) -> None:
    blob, _, last = await chained(engine)
    await engine.edit(blob, "b")
    await engine.rest()
    first = await why(engine, last, "?version=1&depth=1")
    assert (first["version"], first["current_version"], first["because"]["cause"]["kind"]) == (1, 2, "create")
    [middle] = first["because"]["inputs"]
    assert middle["because"]["inputs"][0]["because"] is None
    assert (await why(engine, last, "?depth=0"))["because"]["inputs"][0]["because"] is None


@pytest.mark.parametrize(
    ("path", "status", "pointer"),
    [
        (f"/blobs/{UNKNOWN}/why", 404, None), ("/blobs/{blob}/why?version=9", 404, None),
        ("/blobs/{blob}/why?version=0", 422, "/query/version"), ("/blobs/{blob}/why?depth=99", 422, "/query/depth"),
        ("/blobs/{blob}/why?deep=1", 422, "/query/deep"), (f"/derivations/{UNKNOWN}", 404, None),
        (f"/derivations/{UNKNOWN}/why", 404, None), ("/derivations/x/why", 422, "/path/derivation_id"),
        ("/providers/nobody/explain?blob_id={blob}", 404, None), ("/providers/one/explain", 422, "/query/blob_id"),
        (f"/providers/one/explain?blob_id={UNKNOWN}", 404, None),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_refused(engine: Engine, path: str, status: int, pointer: str | None) -> None:
    blob = await engine.create("text-v1") if "{blob}" in path else UNKNOWN
    if "/one/" in path:
        await engine.provider("one", "in-v1", "out-v1")
    answer = await engine.http.get(f"{BASE}{path.format(blob=blob)}")
    assert (answer.status_code, (answer.json()["errors"] or [{}])[0].get("pointer")) == (status, pointer), answer.text


async def test_nobody_else_learns_why(engine: Engine, stranger: httpx2.AsyncClient) -> None:
    _, _, last = await chained(engine)
    derivation = (await engine.derivation("two"))["id"]
    for path in (f"/blobs/{last}/why", f"/derivations/{derivation}", f"/derivations/{derivation}/why"):
        assert (await stranger.get(f"{BASE}{path}")).status_code == 404
    assert (await stranger.get(f"{BASE}/providers/one/explain?blob_id={last}")).status_code == 404


# --- as it is now ---------------------------------------------------------------------------------------------------


async def test_what_waits_below_a_failure_says_so_and_how_to_go_on(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    run = await engine.take(await engine.latest())
    middle, last = await engine.output("one"), await engine.output("two")
    assert (await agrees(engine, blob, middle))["now"]["state"] == "running"
    assert (await agrees(engine, blob, last))["now"]["pending_inputs"][0]["blob_id"] == str(middle)
    await engine.schedule.fail(engine.user.user_id, run.run_id, code="service_rejected", detail="No model.", usage={})
    failed = await agrees(engine, blob, middle)
    assert failed["now"]["dead_letter"]["code"] == "service_rejected"
    assert "No model." in failed["words"]
    assert [change["action"] for change in failed["changes"]] == ["redrive", "edit", "reprocess"]
    below = await agrees(engine, blob, last)
    [blocker] = below["now"]["blocked_by"]
    assert (below["version"], below["because"], below["now"]["last_good"]) == (0, None, False)
    assert (blocker["code"], blocker["detail"], blocker["state"]) == ("service_rejected", "No model.", "failed")
    assert "nothing has been made yet" in below["words"]
    explained = await engine.ask("GET", blocker["why_url"].removeprefix(BASE))
    assert explained["now"]["state"] == "failed"


async def test_who_declined_is_said_and_so_is_who_had_nothing_to_read(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", trigger_patterns=["storm"])
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1", "calm")
    await engine.rest()
    declined = await agrees(engine, blob, await engine.output("one"))
    assert "no pattern matches the content; nothing has been made yet" in declined["words"]
    below = await agrees(engine, blob, await engine.output("two"))
    assert (below["now"]["state"], below["now"]["skipped"]) == ("fresh", "no_input")
    await engine.edit(blob, "a storm")
    await engine.rest()
    assert (await agrees(engine, blob, await engine.output("two")))["now"]["reason"] == "Up to date with its inputs."
    await engine.edit(blob, "calm")
    await engine.rest()
    assert "the last output stays as it is" in (await agrees(engine, blob, await engine.output("one")))["words"]


async def test_sleep_deletion_and_change_are_told_with_their_way_back(engine: Engine) -> None:
    blob, middle, last = await chained(engine)
    await engine.edit(blob, "b")
    assert (await why(engine, middle))["now"]["unplanned_inputs"][0]["version"] == 2
    await engine.plan_all()
    stale = await agrees(engine, blob, middle)
    assert (stale["now"]["moved_inputs"][0]["used_version"], stale["now"]["last_good"]) == (1, True)
    assert [change["action"] for change in stale["changes"]] == ["wait"]
    await engine.rest()
    await engine.switch("two", active=False)
    await engine.rest()
    off = await agrees(engine, blob, last)
    assert off["changes"][0] == {
        "action": "activate_provider", "method": "PUT", "url": f"{BASE}/providers/two/instance",
        "reason": "Switch two on: what has changed since is taken up.", "headers": {"If-Match": "*"},
        "body": {"active": True},
    }  # fmt: skip
    await engine.delete(blob)
    await engine.rest()
    gone = await agrees(engine, blob, middle)
    assert (gone["now"]["state"], gone["now"]["deleted"][0]["blob_id"]) == ("retired", str(blob))
    assert gone["changes"][0]["url"] == f"{BASE}/blobs/{blob}/restore"
    source = await why(engine, blob)
    assert (source["because"]["operation"], source["changes"][0]["action"]) == ("delete", "restore")


async def test_a_conflict_that_waits_offers_its_decision(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", on_conflict="wait")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, "mine")
    await engine.edit(blob, "b")
    await engine.rest()
    found = await agrees(engine, blob, output)
    assert (found["now"]["state"], len(found["now"]["proposals"])) == ("conflict", 1)
    accept = found["changes"][0]
    assert (accept["action"], accept["method"]) == ("accept", "POST")
    await engine.ask("POST", accept["url"].removeprefix(BASE))
    await engine.rest()
    accepted = await agrees(engine, blob, output)
    assert accepted["now"]["state"] == "fresh"
    assert "accepted what One had proposed" in accepted["words"]


async def test_what_is_put_off_says_until_when_and_why(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    engine.schedule = schedule_of(engine.database, engine.contents, repeats=Repeats(runs_max=1))
    cascade = await engine.edit(blob, "b")
    await engine.advance(cascade)
    found = await agrees(engine, blob, await engine.output("one"))
    assert found["now"]["reason"].startswith("Its inputs have changed; it is put off until")
    assert "looks like a loop" in found["words"]
    shown = await engine.ask("GET", f"/cascades/{cascade}")
    assert "cascades.runs_per_derivation_max" in shown["error"]["detail"]


async def test_a_join_of_many_names_some_and_counts_all(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.join("book", "part-v1", "book-v1")
    book = await engine.bucket()
    for text in "abcdef":
        await engine.create("part-v1", text, bucket_ids=[book])
    await engine.rest()
    few = {**whys._SIZES, "inputs_max": 2, "versions_max": 2}
    monkeypatch.setattr(whys, "_STORY_OF_BLOB", whys._STORY.format(start=whys._OF_BLOB, **few))
    monkeypatch.setattr(whys, "_STANDING_OF_BLOB", whys._STANDING.format(which=whys._WHICH_BLOB, **few))
    monkeypatch.setattr(whys, "VERSIONS_MAX", 2)
    found = await why(engine, await engine.output("book"))
    assert (len(found["because"]["inputs"]), found["because"]["inputs_total"], found["truncated"]) == (2, 6, True)
    assert "and 4 more" in found["words"]
    derivation = await engine.ask("GET", f"/derivations/{found['derivation_id']}")
    assert (derivation["anchor"], derivation["inputs_total"]) == ({"kind": "bucket", "id": book, "name": "Book"}, 6)


def test_every_action_is_a_request_that_there_is_with_a_body_that_it_takes(app: Any) -> None:
    document = app.openapi()
    operations = [
        (method.upper(), re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)), operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    budget = {"user_id": UNKNOWN, "limit": 5, "spent": 1, "reserved": 0, "managed": True}
    standings = [
        *EVERY_STATE.values(), held("failed"), held(None, definition_digest="d2"), held("budget", budget=budget),
        {**held("cancelled"), "hold_detail": {}},
    ]  # fmt: skip
    actions = [one for standing in standings for one in changes(standing, ROW)]
    actions += [one for row in (ROW, {**ROW, "deleted_at": WHEN}) for one in changes(None, row)]
    for one in actions:
        [operation] = [found for method, path, found in operations if (method, bool(path.fullmatch(one["url"]))) == (
            one["method"], True)]  # fmt: skip
        takes = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if one["action"] != "edit":  # what to write is the person's
            assert (takes is not None) == (one["body"] is not None), one
        if one["body"] is not None:
            schema = {**takes["schema"], "components": document["components"]}
            assert list(Draft202012Validator(schema).iter_errors(one["body"])) == [], one


# --- who reacts to what ---------------------------------------------------------------------------------------------


async def test_what_explain_says_is_what_discovery_does(engine: Engine) -> None:
    wants: dict[str, dict[str, Any]] = {
        "plain": {}, "any": {"origin": "any"}, "types": {"supported_types": ["application/*"]},
        "texts": {"supported_types": ["text/plain"]}, "off": {"activate": False}, "lost": {"events": ["onDelete"]},
    }  # fmt: skip
    for slug, more in wants.items():
        await engine.provider(slug, "in-v1", "in-v1" if slug == "any" else "out-v1", **more)
    await engine.provider("other", "mid-v1", "out-v1")
    await engine.join("joiner", "in-v1", "book-v1")
    await engine.create("in-v1", bucket_ids=[await engine.bucket()])
    await engine.create("mid-v1")
    gone = await engine.create("in-v1", "gone")
    await engine.delete(gone)
    await engine.rest()
    blobs = await engine.rows("select id from blobs where user_id = $1 and version > 0")
    said = {}
    for row in blobs:
        for slug in [*wants, "other", "joiner"]:
            found = await engine.ask("GET", f"/providers/{slug}/explain?blob_id={row['id']}")
            assert len(found["predicates"]) >= 8
            said[row["id"], slug] = found["matches"]
    made = await engine.rows(
        "select i.blob_id, p.slug from derivations d join providers p on p.id = d.provider_id"
        " join derivation_inputs i on i.user_id = d.user_id and i.derivation_id = d.id where d.user_id = $1"
    )
    assert {pair for pair, matches in said.items() if matches} == {(row["blob_id"], row["slug"]) for row in made}
    assert {slug for (_, slug), matches in said.items() if matches} == {"plain", "any", "types", "other", "joiner"}


async def test_explaining_takes_two_statements_however_deep(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, last = await chained(engine)
    seen: list[str] = []
    original = whys.Whys._read

    async def counted(self: Any, *arguments: Any) -> Any:
        seen.append("read")
        return await original(self, *arguments)

    monkeypatch.setattr(whys.Whys, "_read", counted)
    await why(engine, last, "?depth=50")
    assert seen == ["read"]
