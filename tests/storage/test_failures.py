"""What a failure means further down, over PostgreSQL; dead letters tried again; newer definitions on request."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import yaml

from domain.ids import new_id
from tests.api.requests import problem
from tests.conftest import BASE
from tests.storage.engine import Engine
from tests.storage.test_schedule_plan import joined


async def fail(engine: Engine, cascade: UUID, code: str = "service_rejected") -> UUID:
    """Plan a cascade, let the one run that comes of it fail, and all else go on; returns the run."""
    run = await engine.take(cascade)
    await engine.schedule.fail(engine.user.user_id, run.run_id, code=code, detail="No.", usage={"tokens": 3})
    await engine.rest()
    return run.run_id


async def book(engine: Engine, policy: str) -> tuple[list[UUID], Any]:
    """Two chapters of two topics, joined in a book by ``policy``; and what reads the state of the book."""
    await engine.provider("write", "in-v1", "mid-v1")
    await engine.join("book", "mid-v1", "book-v1", on_parent_failure=policy)
    bucket = await engine.bucket()
    topics = [await engine.create("in-v1", text, bucket_ids=[bucket]) for text in "ab"]
    await engine.rest()
    assert await joined(engine) == "a! b!"

    async def state() -> tuple[bool, str | None]:
        row = await engine.derivation("book")
        return row["unsettled"], row["provisional"]

    return topics, state


async def test_a_join_goes_on_with_the_last_good_chapter_says_so_and_is_made_again(engine: Engine) -> None:
    topics, state = await book(engine, "use_last_good")
    await fail(engine, await engine.edit(topics[0], "A"))
    await engine.edit(topics[1], "B")
    await engine.rest()
    assert (await joined(engine), await state()) == ("a! B!", (False, "last_good"))
    run = (await engine.ask("GET", "/runs?provider_id=book&limit=1"))["data"][0]
    assert [item["stale"] for item in run["inputs"]] == [True, False]
    done = await engine.ask("POST", "/dead-letters/redrive", {"code": "service_rejected"})
    await engine.rest()
    assert (await joined(engine), await state()) == ("A! B!", (False, None))
    assert (await engine.ask("GET", f"/cascades/{done['cascade_id']}"))["cause"] == "redrive"


async def test_what_skips_keeps_its_output_and_the_cascade_says_why(engine: Engine) -> None:
    topics, state = await book(engine, "skip")
    cascade = await engine.edit(topics[0], "A")
    await fail(engine, cascade)
    assert (await joined(engine), await state()) == ("a! b!", (False, "skipped"))
    rows = await engine.rows("select reason from cut_offs where user_id = $1 and cascade_id = $2", cascade)
    assert [row["reason"] for row in rows] == ["parent_failed"]
    assert (await engine.cascade(cascade))["status"] == "partial"
    await engine.edit(topics[0], "AA")
    await engine.rest()
    assert (await joined(engine), await state()) == ("AA! b!", (False, None))


async def test_a_failure_that_ends_as_its_provider_is_switched_off_takes_back_what_was_skipped(engine: Engine) -> None:
    topics, state = await book(engine, "skip")
    await fail(engine, await engine.edit(topics[0], "A"))
    await engine.edit(topics[1], "B")
    await engine.rest()
    assert (await joined(engine), await state()) == ("a! b!", (False, "skipped"))
    await engine.switch("write", active=False)
    await engine.rest()
    assert (await joined(engine), await state()) == ("a! B!", (False, None))


async def test_ones_own_policy_holds_at_once_in_both_directions(engine: Engine) -> None:
    topics, state = await book(engine, "block")
    await fail(engine, await engine.edit(topics[0], "A"))
    await engine.edit(topics[1], "B")
    await engine.rest()
    assert (await joined(engine), await state()) == ("a! b!", (True, None))
    for policy, text, stands in (
        ("use_last_good", "a! B!", (False, "last_good")),
        ("skip", "a! B!", (False, "skipped")),
        (None, "a! B!", (True, None)),
    ):
        put = {"on_parent_failure": policy}
        shown = await engine.ask("PUT", "/providers/book/instance", put, **{"if-match": "*"})
        assert shown["on_parent_failure"] == (policy or "block")
        await engine.rest()
        assert (await joined(engine), await state()) == (text, stands)
    answer = await engine.http.put(
        f"{BASE}/providers/book/instance", json={"on_parent_failure": "guess"}, headers={"if-match": "*"}
    )
    problem(answer, 422, "invalid_value", "/on_parent_failure")


async def test_a_policy_counts_for_what_is_held_as_well(engine: Engine) -> None:
    topics, state = await book(engine, "block")
    await fail(engine, await engine.edit(topics[0], "A"))
    cascade = await engine.edit(topics[1], "B")
    assert await engine.schedule.cancel_cascade(engine.user.user_id, cascade, actor="user") == "done"
    await engine.ask("PUT", "/providers/book/instance", {"on_parent_failure": "use_last_good"}, **{"if-match": "*"})
    await engine.rest()
    row = await engine.derivation("book")
    assert (row["hold"], row["pending_inputs"]) == ("cancelled", 1)
    await engine.rows("select retry_cascade($1, $2, 'user')", cascade)
    await engine.rest()
    assert (await joined(engine), await state()) == ("a! B!", (False, "last_good"))


async def test_a_chapter_that_was_never_written_holds_the_book_or_is_skipped(engine: Engine) -> None:
    await engine.provider("write", "in-v1", "mid-v1")
    await engine.provider("polish", "mid-v1", "out-v1", origin="any", on_parent_failure="use_last_good")
    topic = await engine.create("in-v1")
    await fail(engine, await engine.latest())
    row = await engine.derivation("polish")
    assert (row["unsettled"], row["pending_inputs"], row["failing"]) == (True, 1, True)
    await engine.edit(topic, "b")
    await engine.rest()
    assert await engine.text(await engine.output("polish")) == "b!!"


# --- dead letters -----------------------------------------------------------------------------------------------------


async def test_a_dead_letter_keeps_what_failed_and_a_redrive_uses_what_was_fixed(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", settings={"mark": "!"})
    blob = await engine.create("in-v1", "a")
    run_id = await fail(engine, await engine.latest())
    [letter] = (await engine.ask("GET", "/dead-letters?status=open&provider_id=one&code=service_rejected"))["data"]
    assert (letter["run_id"], letter["usage"], letter["attempt"]) == (str(run_id), {"tokens": 3}, 1)
    assert letter["inputs"][0] | {"hash": ""} == {
        "blob_id": str(blob), "version": 1, "hash": "", "role": "source", "position": 0, "stale": False,
    }  # fmt: skip
    told = await engine.ask("GET", "/events?type=run.dead_lettered")
    assert [event["data"]["dead_letter_id"] for event in told["data"]] == [letter["id"]]
    await engine.admin.execute(  # a new revision that no cascade has followed up: as another's provider gets one
        "update providers set definition_digest = 'broken' where slug = 'one' and owner_id = $1", engine.user.user_id
    )
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + '?'", settings={"mark": "!"})
    await engine.admin.execute("delete from cascades where user_id = $1 and cause = 'provider'", engine.user.user_id)
    plan = await engine.ask("POST", "/dead-letters/redrive", {"provider_id": "one", "dry_run": True})
    assert (plan["count"], plan["cascade_id"], [row["id"] for row in plan["dead_letters"]]) == (1, None, [letter["id"]])
    answer = await engine.http.post(f"{BASE}/dead-letters/{letter['id']}/redrive", headers={"idempotency-key": "k1"})
    assert (answer.status_code, answer.headers["location"].split("/")[-2]) == (202, "cascades")
    again = await engine.http.post(f"{BASE}/dead-letters/{letter['id']}/redrive", headers={"idempotency-key": "k1"})
    assert again.json() == answer.json()
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "a?"
    after = await engine.ask("GET", f"/dead-letters/{letter['id']}")
    assert (after["status"], after["redriven_by"]) == ("redriven", answer.json()["cascade_id"])
    assert (after["definition_digest"], after["current_definition_digest"] != after["definition_digest"]) == (
        letter["definition_digest"], True,
    )  # fmt: skip


async def test_a_redrive_says_whose_workflow_is_newer_than_what_would_run(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1", "a")
    await fail(engine, await engine.latest())
    asked = {"provider_id": "one", "dry_run": True}
    assert (await engine.ask("POST", "/dead-letters/redrive", asked))["outdated_providers"] == []
    [workflow] = [row for row in (await engine.ask("GET", "/workflows"))["data"] if row["id"] == "wf-one"]
    source = yaml.safe_load((await engine.ask("GET", "/workflows/wf-one"))["source"])
    source["steps"][0]["operations"] = [{"text": "$.data.text + '?'"}]
    behind = {"provider_id": "one", "workflow_id": "wf-one", "version": workflow["version"], "newest": 2}
    assert (await engine.ask("POST", "/workflows", source))["outdated_providers"] == [behind]
    assert (await engine.ask("POST", "/dead-letters/redrive", asked))["outdated_providers"] == [behind]
    await engine.ask("POST", "/providers", {"id": "one", "name": "One", "workflow_id": "wf-one",
                                            "input_schema_id": "in-v1"})  # fmt: skip
    assert (await engine.ask("POST", "/workflows", source))["outdated_providers"] == []


async def test_a_redrive_tells_apart_what_it_leaves_alone(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blobs, letters = [], []
    for text in "abc":
        blobs.append(await engine.create("in-v1", text))
        await fail(engine, await engine.latest())
        letters.append((await engine.ask("GET", "/dead-letters?limit=1"))["data"][0]["id"])
    assert (await engine.ask("POST", f"/dead-letters/{letters[0]}/redrive"))["count"] == 1
    await engine.edit(blobs[1], "d")
    await engine.rest()
    nobody = str(new_id())
    body = await engine.ask("POST", "/dead-letters/redrive", {"ids": [*letters, nobody], "dry_run": True})
    assert (body["count"], body["already_redriven"], body["overtaken"], body["unknown"]) == (1, 1, 1, [nobody])
    assert (await engine.ask("POST", "/dead-letters/redrive", {"ids": [letters[0]]}))["cascade_id"] is None
    statuses = [row["status"] for row in (await engine.ask("GET", "/dead-letters"))["data"]]
    assert statuses == ["open", "overtaken", "redriven"]
    for bad, pointer in (
        ({}, ""),
        ({"ids": []}, "/ids"),
        ({"ids": ["7"]}, "/ids/0"),
        ({"ids": letters, "code": "x"}, "/ids"),
    ):
        refused = await engine.http.post(f"{BASE}/dead-letters/redrive", json=bad)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == pointer
    problem(await engine.http.get(f"{BASE}/dead-letters?status=lost"), 422, "invalid_value", "/query/status")
    problem(await engine.http.get(f"{BASE}/dead-letters/{nobody}"), 404, "not_found")


async def test_two_redrives_at_once_run_each_failure_once(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    for text in "ab":
        await engine.create("in-v1", text)
        await fail(engine, await engine.latest())
    first = await engine.ask("POST", "/dead-letters/redrive", {"provider_id": "one"})
    second = await engine.ask("POST", "/dead-letters/redrive", {"provider_id": "one"})
    assert (first["count"], second["count"], second["cascade_id"]) == (2, 0, None)
    await engine.rest()
    assert sorted(await engine.runs("one")) == ["failed", "failed", "settled", "settled"]


# --- newer definitions ------------------------------------------------------------------------------------------------


async def published(engine: Engine) -> tuple[UUID, str, str]:
    """Make a provider somebody else's, of two definitions, at the second; the owner, digest and spec of the first."""
    spec = "select definition_digest, spec from providers where slug = 'one' and owner_id = $1"
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + '?'")
    first = await engine.admin.fetchrow(spec, engine.user.user_id)
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + '!'")
    await engine.rest()
    owner = new_id()
    await engine.admin.execute("insert into users (user_id, name) values ($1, $2)", owner, f"owner-{owner}")
    for table in ("schemas", "definitions", "providers"):
        statement = f"update {table} set owner_id = $2, published = true where owner_id = $1"  # noqa: S608
        await engine.admin.execute(statement, engine.user.user_id, owner)
    return owner, first["definition_digest"], first["spec"]


async def test_a_newer_definition_of_somebody_elses_redoes_nothing_until_it_is_asked_for(engine: Engine) -> None:
    owner, digest, spec = await published(engine)
    sources = [await engine.create("in-v1", text) for text in "ab"]
    await engine.rest()
    made = "select o.blob_id from derivation_outputs o join derivations d on d.user_id = o.user_id"
    made += " and d.id = o.derivation_id where d.user_id = $1 and d.anchor_id = $2"

    async def texts() -> list[str]:
        return [await engine.text((await engine.rows(made, blob))[0]["blob_id"]) for blob in sources]

    assert await texts() == ["a!", "b!"]
    newer = "update providers set definition_digest = $1, spec = $2 where slug = 'one' and published"
    await engine.admin.execute(newer, digest, spec)
    await engine.edit(sources[0], "c")
    await engine.rest()
    assert await texts() == ["c?", "b!"], "a new edit uses the newer definition, nothing else moves"
    plan = await engine.ask("POST", "/providers/one/upgrade", {"dry_run": True})
    assert (plan["count"], plan["possible_below"], plan["cascade_id"]) == (1, 0, None)
    assert await texts() == ["c?", "b!"]
    done = await engine.ask("POST", "/providers/one/upgrade", {})
    assert (await engine.cascade(UUID(done["cascade_id"])))["cause"] == "provider_change"
    await engine.rest()
    assert await texts() == ["c?", "b?"]
    assert len(await engine.runs("one")) == 4, "only what an older definition had made is made again"
    assert (await engine.ask("POST", "/providers/one/upgrade", {}))["count"] == 0
    # The catalogue is everybody's.
    for table in ("schemas", "definitions", "providers"):
        await engine.admin.execute(f"update {table} set published = false where published and owner_id = $1", owner)  # noqa: S608


async def test_a_claim_does_not_look_for_ever_at_what_was_switched_off_since_it_was_planned(engine: Engine) -> None:
    owner, digest, spec = await published(engine)
    source = await engine.create("in-v1", "a")
    await engine.rest()
    edited = await engine.edit(source, "b")
    await engine.plan(edited)
    newer = "update providers set definition_digest = $1, spec = $2 where slug = 'one' and published"
    await engine.admin.execute(newer, digest, spec)
    await engine.switch("one", active=False)  # a cascade that is not planned yet
    async with asyncio.timeout(20):
        await engine.claim(edited)
    await engine.rest()
    assert await engine.runs("one") == ["settled", "settled"]
    for table in ("schemas", "definitions", "providers"):
        await engine.admin.execute(f"update {table} set published = false where published and owner_id = $1", owner)  # noqa: S608
