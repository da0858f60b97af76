"""Plans over HTTP: what a write would set in motion, and the write that happens only if that still holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from domain.ids import new_id
from storage.contents import Contents
from storage.database import Database
from tests.api.requests import edit, envelope, make, problem
from tests.api.schedule import plan_all, schedule_of
from tests.conftest import BASE, Person
from tests.storage.conftest import engine
from tests.storage.engine import Engine

__all__ = ["engine"]

DRAFT = {"schema_id": "text-input-v1", "data": {"content": "The ship sailed into the storm."}}
UNWRITTEN = ("plans", "idempotency_keys")


async def planned(client: httpx2.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await client.post(f"{BASE}/cascades/plan", json=asked)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["etag"] == f'"{found["etag"]}"'
    assert answer.headers["location"] == f"{BASE}/cascades/plans/{found['id']}"
    return found


async def everything(admin: Any, user_id: UUID) -> dict[str, str]:
    """A digest of every row of every table that is the user's, catalogue included."""
    columns = await admin.fetch(
        "select c.table_name, c.column_name from information_schema.columns c join information_schema.tables t"
        " using (table_schema, table_name) where c.table_schema = 'public' and t.table_type = 'BASE TABLE'"
        " and c.column_name in ('user_id', 'owner_id')"
    )
    return {
        table: await admin.fetchval(
            f"select md5(string_agg(t::text, ' ' order by t::text)) from {table} t where {column} = $1", user_id  # noqa: S608
        )
        for table, column in columns
        if table not in UNWRITTEN
    }  # fmt: skip


@pytest_asyncio.fixture
async def unwritten(admin: Any, user: Person) -> AsyncIterator[Any]:
    """Asserts that nothing at all was written between two calls."""

    async def seen() -> dict[str, str]:
        return await everything(admin, user.user_id)

    yield seen


def outlooks(plan: dict[str, Any]) -> dict[str, str]:
    return {node["provider_id"]: node["outlook"] for node in plan["nodes"]}


async def chain(engine: Engine) -> UUID:
    """Two providers, one below the other, at rest."""
    await engine.provider("first", "pl-a-v1", "pl-b-v1")
    await engine.provider("second", "pl-b-v1", "pl-c-v1")
    root = await engine.create("pl-a-v1", "one")
    await engine.rest()
    return root


# --- what is said ---------------------------------------------------------------------------------------------------


async def test_a_new_blob_is_planned_and_nothing_is_written(client: httpx2.AsyncClient, unwritten: Any) -> None:
    before = await unwritten()
    plan = await planned(client, blob=DRAFT)
    assert await unwritten() == before
    assert (plan["kind"], plan["effect"], plan["status"]) == ("create", "changes", "open")
    assert outlooks(plan) == {
        "text-expansion": "certain", "style-editor": "possible", "grammar-checker": "possible", "summarizer": "possible"
    }  # fmt: skip
    assert {node["state"] for node in plan["nodes"]} == {"new"}
    assert plan["levels"][0] == [plan["blob_id"]]
    assert len(plan["levels"]) == 5
    assert (await client.get(f"{BASE}/blobs/{plan['blob_id']}")).status_code == 404
    read = await client.get(f"{BASE}/cascades/plans/{plan['id']}")
    assert read.json() == plan


async def test_an_edit_says_what_is_certain_possible_unchanged(engine: Engine, unwritten: Any) -> None:
    root = await chain(engine)
    before = await unwritten()
    plan = await planned(engine.http, blob_id=str(root), **envelope(data={"text": "two"}))
    assert outlooks(plan) == {"first": "certain", "second": "possible"}
    assert plan["counts"] | {"total": 2, "certain": 1, "possible": 1, "new": 0} == plan["counts"]
    assert {node["state"] for node in plan["nodes"]} == {"fresh"}
    assert plan["roots"] == [{"kind": "blob", "id": str(root), "title": "T", "operation": "update", "version": 1}]
    titled = await planned(engine.http, blob_id=str(root), title="Another")
    assert (titled["effect"], titled["nodes"]) == ("changes", [])  # nobody reads titles
    same = await planned(engine.http, blob_id=str(root), data={"text": "one"})
    assert (same["effect"], same["counts"]["total"]) == ("nothing", 0)
    assert await unwritten() == before


async def test_an_edit_back_to_what_was_used_is_cut_off_as_far_as_is_known(engine: Engine) -> None:
    root = await chain(engine)
    await engine.edit(root, "two")
    await engine.plan_all()  # claimed by nobody yet
    plan = await planned(engine.http, blob_id=str(root), data={"text": "one"})
    assert outlooks(plan) == {"first": "unchanged", "second": "unchanged"}
    assert {node["state"] for node in plan["nodes"]} == {"stale"}


async def test_deleting_lets_derivations_rest_and_restoring_wakes_them(engine: Engine, unwritten: Any) -> None:
    root = await chain(engine)
    before = await unwritten()
    gone = await planned(engine.http, blob_id=str(root), operation="delete")
    assert outlooks(gone) == {"first": "rests"}
    assert await unwritten() == before
    await engine.delete(root)
    await engine.rest()
    back = await planned(engine.http, blob_id=str(root), operation="restore")
    assert outlooks(back)["first"] == "unchanged"


async def test_human_words_at_risk_are_named_with_what_will_become_of_them(engine: Engine) -> None:
    root = await chain(engine)
    output = await engine.output("first")
    await engine.edit(output, "by hand")
    await engine.rest()
    plan = await planned(engine.http, blob_id=str(root), data={"text": "two"})
    [first] = [node for node in plan["nodes"] if node["provider_id"] == "first"]
    assert first["at_risk"] == [
        {"blob_id": str(output), "slot": "keep", "title": first["outputs"][0]["title"], "on_conflict": "keep_human"}
    ]
    assert plan["counts"]["at_risk"] == 1


async def test_what_it_takes_is_a_range_over_the_runs_of_before(engine: Engine) -> None:
    root = await chain(engine)
    await engine.admin.execute(
        "update runs set usage = jsonb_build_object('total_tokens', 100 * attempt),"
        " ended_at = started_at + interval '2 seconds' where user_id = $1",
        engine.user.user_id,
    )
    await engine.admin.execute(
        "insert into charges (user_id, id, run_id, step_id, cascade_id, derivation_id, provider_id, amount)"
        " select user_id, gen_random_uuid(), id, 'call', cascade_id, derivation_id, provider_id, 500000"
        " from runs where user_id = $1",
        engine.user.user_id,
    )
    plan = await planned(engine.http, blob_id=str(root), data={"text": "two"})
    estimate = plan["estimate"]
    assert estimate["tokens"] == {"low": 100.0, "high": 200.0, "unknown_nodes": 0}
    assert estimate["cost"] == {"low": 500_000, "high": 1_000_000, "unknown_nodes": 0}
    assert estimate["critical_path_seconds"] == {"low": 2.0, "high": 4.0}
    await engine.provider("third", "pl-a-v1", "pl-d-v1")
    more = await planned(engine.http, blob_id=str(root), data={"text": "two"})
    assert more["estimate"]["tokens"] == {**estimate["tokens"], "unknown_nodes": 1}  # `third` has never run
    assert more["unplanned_causes"] == 1  # its registration


async def test_a_provider_and_an_instance_are_planned_with_everything_that_they_catch_up_with(
    engine: Engine, unwritten: Any
) -> None:
    root = await chain(engine)
    workflow = {"id": "wf-more", "name": "More", "steps": [
        {"id": "compute", "type": "computation", "operations": [{"text": "$.data.text + '?'"}]},
        {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": "pl-c-v1",
         "data_map": {"text": "$.text"}}]}  # fmt: skip
    await engine.ask("POST", "/workflows", workflow)
    before = await unwritten()
    provider = {"id": "more", "name": "More", "workflow_id": "wf-more", "input_schema_id": "pl-a-v1"}
    plan = await planned(engine.http, provider=provider)
    assert outlooks(plan) == {"more": "certain"}
    assert plan["nodes"][0]["anchor"]["id"] == str(root)
    off = await planned(engine.http, provider_id="first", active=False)
    assert outlooks(off) == {"first": "rests"}
    configured = await planned(engine.http, provider_id="first", settings={"tone": "dry"})
    assert outlooks(configured) == {"first": "certain", "second": "possible"}
    assert await unwritten() == before
    answer = await engine.http.post(f"{BASE}/providers", json=provider, headers={"studio-plan": plan["id"]})
    assert answer.status_code == 201, answer.text
    await engine.rest()
    assert await engine.runs("more") == ["settled"]


async def test_membership_of_a_bucket_is_planned(engine: Engine, unwritten: Any) -> None:
    await engine.join("joined", "pl-a-v1", "pl-j-v1")
    bucket, blob = await engine.bucket(), await engine.create("pl-a-v1", "one")
    await engine.rest()
    before = await unwritten()
    plan = await planned(engine.http, bucket_id=bucket, add=str(blob))
    assert outlooks(plan) == {"joined": "certain"}
    assert await unwritten() == before
    path = f"{BASE}/buckets/{bucket}/blobs"
    answer = await engine.http.post(path, json={"blob_id": str(blob)}, headers={"studio-plan": plan["id"]})
    assert answer.status_code == 201, answer.text
    await engine.rest()
    removal = await planned(engine.http, bucket_id=bucket, remove=str(blob))
    assert outlooks(removal) == {"joined": "unchanged"}


async def test_a_reprocess_is_planned_and_says_whether_it_pays_again(engine: Engine, unwritten: Any) -> None:
    await chain(engine)
    [run] = await engine.rows("select id from runs where user_id = $1 and provider_id = 'first'")
    await engine.admin.execute(
        "insert into run_steps (user_id, run_id, step_id, position, type, status, memo_key)"
        " values ($1, $2, 'ask', 9, 'ai-call', 'done', 'key')",
        engine.user.user_id, run["id"],
    )  # fmt: skip
    await engine.admin.execute(
        "insert into memo (user_id, key, state, run_id, step_id, provider_id)"
        " values ($1, 'key', 'done', $2, 'ask', 'first')",
        engine.user.user_id, run["id"],
    )  # fmt: skip
    output = await engine.output("first")
    before = await unwritten()
    again = await planned(engine.http, blob_id=str(output), reprocess={"scope": "node"})
    assert outlooks(again) == {"first": "certain", "second": "possible"}
    assert [node["reuses_run"] for node in again["nodes"]] == [str(run["id"]), None]
    assert again["roots"][0]["kind"] == "reprocess"
    anew = await planned(engine.http, blob_id=str(output), reprocess={"scope": "subtree", "force": True})
    assert outlooks(anew) == {"first": "certain", "second": "certain"}
    assert anew["counts"]["reused"] == 0
    assert await unwritten() == before
    path, body = f"{BASE}/blobs/{output}/reprocess", {"scope": "subtree", "force": True}
    other = await engine.http.post(path, json={"scope": "node"}, headers={"studio-plan": anew["id"]})
    problem(other, 409, "plan_moved")
    answer = await engine.http.post(path, json=body, headers={"studio-plan": anew["id"]})
    assert answer.status_code == 202, answer.text


async def test_a_redrive_and_an_upgrade_are_planned(engine: Engine, unwritten: Any) -> None:
    root = await chain(engine)
    cascade = await engine.edit(root, "two")
    run = await engine.take(cascade)
    await engine.schedule.fail(engine.user.user_id, run.run_id, code="service_rejected", detail="No.", usage={})
    await engine.rest()
    before = await unwritten()
    plan = await planned(engine.http, dead_letters={"provider_id": "first"})
    assert outlooks(plan) == {"first": "certain", "second": "possible"}
    assert {node["state"] for node in plan["nodes"]} == {"failed", "blocked"} or plan["nodes"][0]["state"] == "failed"
    assert await unwritten() == before
    path, body = f"{BASE}/dead-letters/redrive", {"provider_id": "first"}
    answer = await engine.http.post(path, json=body, headers={"studio-plan": plan["id"]})
    assert answer.status_code == 202, answer.text
    await engine.rest()
    assert (await engine.http.get(f"{BASE}/cascades/plans/{plan['id']}")).json()["actual"]["runs"] == 2
    upgrade = await planned(engine.http, provider_id="first", upgrade=True)
    assert (upgrade["effect"], upgrade["nodes"]) == ("nothing", [])  # its own provider's outputs are all new


async def test_pausing_what_failed_frees_what_waits_for_it(engine: Engine, unwritten: Any) -> None:
    root = await chain(engine)
    run = await engine.take(await engine.edit(root, "two"))
    await engine.schedule.fail(engine.user.user_id, run.run_id, code="service_rejected", detail="No.", usage={})
    await engine.rest()
    off = {"provider_id": "first", "active": False}
    assert outlooks(await planned(engine.http, **off)) == {"first": "rests", "second": "unchanged"}
    await engine.edit(await engine.output("first"), "by hand")
    await engine.rest()
    before = await unwritten()
    plan = await planned(engine.http, **off)
    assert outlooks(plan) == {"first": "rests", "second": "certain"}
    assert await unwritten() == before
    ran = await engine.runs("second")
    headers = {"studio-plan": plan["id"], "if-match": "*"}
    await engine.ask("PUT", "/providers/first/instance", {"active": False}, **headers)
    await engine.rest()
    assert await engine.runs("second") == [*ran, "settled"]


async def test_what_pausing_frees_is_cut_off_down_through_the_cascades_that_it_belongs_to(engine: Engine) -> None:
    root = await chain(engine)
    for above, below in ((2, 3), (3, 4), (4, 5)):
        await engine.provider(f"below-{below}", f"pl-{'abcdef'[above]}-v1", f"pl-{'abcdef'[below]}-v1")
    await engine.rest()
    run = await engine.take(await engine.edit(root, "two"))
    await engine.schedule.fail(engine.user.user_id, run.run_id, code="service_rejected", detail="No.", usage={})
    await engine.rest()
    for slug in ("second", "below-3", "below-4"):  # each takes along what is below it
        output = await engine.output(slug)
        before = await engine.text(output)
        await engine.edit(output, "by hand")
        await engine.rest()
        await engine.edit(output, before)
        await engine.rest()
    plan = await planned(engine.http, provider_id="first", active=False)
    assert outlooks(plan) == {
        "first": "rests", "second": "unchanged", "below-3": "unchanged", "below-4": "unchanged", "below-5": "unchanged"
    }  # fmt: skip


async def test_large_content_is_not_uploaded_for_a_plan(
    client: httpx2.AsyncClient, unwritten: Any, monkeypatch: pytest.MonkeyPatch, app: Any
) -> None:
    asked: list[str] = []
    objects = app.state.ports.contents._objects
    put = objects.put

    async def noted(location: str, data: bytes) -> None:
        asked.append(location)
        await put(location, data)

    monkeypatch.setattr(objects, "put", noted)
    before = await unwritten()
    await planned(client, blob={"content": "x" * 3_000_000})
    assert asked == []
    assert await unwritten() == before


# --- what is refused ------------------------------------------------------------------------------------------------


async def test_a_plan_is_refused_as_its_write_would_be_with_places_in_its_own_body(client: httpx2.AsyncClient) -> None:
    async def asked(body: Any) -> httpx2.Response:
        return await client.post(f"{BASE}/cascades/plan", json=body)

    blob = await make(client, **DRAFT)
    problem(await asked({}), 422, "missing_field")
    problem(await asked([]), 422, "wrong_type")
    problem(await asked({"blob": {"content": "x", "colour": 1}}), 422, "unknown_field", "/blob/colour")
    problem(await asked({"blob": DRAFT, "more": 1}), 422, "unknown_field", "/more")
    problem(await asked({"blob_id": "x", "title": "y"}), 422, "invalid_id", "/blob_id")
    problem(await asked({"blob_id": str(new_id()), "title": "y"}), 404, "not_found")
    problem(await asked({"blob_id": blob["id"], "operation": "burn"}), 422, "invalid_value", "/operation")
    problem(await asked({"blob_id": blob["id"], "patch": [{"op": "jump", "path": "/x"}]}), 422, "invalid_operation",
            "/patch/0/op")  # fmt: skip
    problem(await asked({"blob_id": blob["id"], "title": "y", "from_version": 9}), 412, "precondition_failed")
    problem(await asked({"provider_id": "nobody", "active": True}), 404, "not_found")
    problem(await asked({"provider_id": "text-expansion", "colour": 1}), 422, "unknown_field", "/colour")


async def test_planning_needs_the_scope_of_the_write(app: Any, make_user: Any) -> None:
    from tests.conftest import client_of  # noqa: PLC0415 - for this one

    reader = await make_user(("blobs:read",))
    async with client_of(app, reader.headers) as client:
        problem(await client.post(f"{BASE}/cascades/plan", json={"blob": DRAFT}), 403, "missing_scope")


# --- the write that names it ----------------------------------------------------------------------------------------


async def patch(client: httpx2.AsyncClient, blob_id: Any, plan: Any, text: str, **headers: str) -> httpx2.Response:
    named = {"studio-plan": plan if isinstance(plan, str) else plan["id"], **headers}
    return await client.patch(f"{BASE}/blobs/{blob_id}", json=envelope(data={"text": text}), headers=named)


async def test_a_bound_create_makes_the_planned_blob_and_tells_afterwards_how_it_went(
    engine: Engine,
) -> None:
    await chain(engine)
    body = {"schema_id": "pl-a-v1", "data": {"text": "new"}}
    plan = await planned(engine.http, blob=body)
    answer = await engine.http.post(f"{BASE}/blobs", json=body, headers={"studio-plan": plan["id"]})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["id"] == plan["blob_id"]
    cascade = (await engine.http.get(f"{BASE}/cascades/{made['cascade_id']}")).json()
    assert cascade["plan_id"] == plan["id"]
    assert cascade["planned_at"] is not None
    await engine.rest()
    read = (await engine.http.get(f"{BASE}/cascades/plans/{plan['id']}")).json()
    assert (read["status"], read["cascade_id"]) == ("used", made["cascade_id"])
    actual = read["actual"]
    assert (actual["status"], actual["runs"], actual["certain_and_ran"], actual["possible_and_ran"]) == (
        "completed", 2, 1, 1
    )  # fmt: skip
    assert (actual["certain_not_run"], actual["unforeseen"]) == ([], [])
    detail = (await engine.http.get(f"{BASE}/cascades/{made['cascade_id']}")).json()
    assert detail["plan"]["actual"] == actual


async def test_a_bound_edit_has_a_cascade_of_its_own_and_folds_into_none(
    engine: Engine,
) -> None:
    root = await chain(engine)
    earlier = await engine.edit(root, "two")
    plan = await planned(engine.http, blob_id=str(root), **envelope(data={"text": "three"}))
    assert plan["unplanned_causes"] == 1
    answer = await patch(engine.http, root, plan, "three")
    assert answer.status_code == 200, answer.text
    assert answer.json()["cascade_id"] != str(earlier)
    later = await engine.edit(root, "four")
    assert str(later) == str(earlier)  # which is still unplanned; the planned one takes nothing more
    await engine.rest()
    assert await engine.text(await engine.output("second")) == "four!!"


async def test_a_moved_graph_refuses_the_write_and_says_what_moved(engine: Engine, unwritten: Any) -> None:
    root = await chain(engine)
    plan = await planned(engine.http, blob_id=str(root), **envelope(data={"text": "two"}))
    await engine.edit(await engine.output("first"), "by hand")
    await engine.rest()
    before = await unwritten()
    found = problem(await patch(engine.http, root, plan, "two"), 409, "plan_moved")
    assert found["difference"]["counts"] == {"roots": 0, "added": 0, "removed": 0, "changed": 2}
    assert await unwritten() == before
    other = await planned(engine.http, blob_id=str(root), **envelope(data={"text": "two"}))
    assert set(found["difference"]["changed"]) == {node["derivation_id"] for node in other["nodes"]}
    found = problem(await patch(engine.http, root, other, "three"), 409, "plan_moved")  # another edit than planned
    assert found["difference"]["roots"][0]["id"] == str(root)
    await engine.provider("third", "pl-a-v1", "pl-d-v1")
    await engine.rest()
    found = problem(await patch(engine.http, root, other, "two"), 409, "plan_moved")
    assert found["difference"]["counts"]["added"] == 1
    assert (await engine.http.get(f"{BASE}/cascades/plans/{other['id']}")).json()["status"] == "open"


async def test_a_plan_counts_once_until_it_expires_and_for_its_write_alone(
    engine: Engine, stranger: httpx2.AsyncClient
) -> None:
    root = await chain(engine)
    plan = await planned(engine.http, blob_id=str(root), data={"text": "two"})
    output = await engine.output("first")
    problem(await patch(engine.http, output, plan, "two"), 409, "plan_mismatch")
    problem(await patch(engine.http, root, str(new_id()), "two"), 404, "not_found")
    problem(await patch(engine.http, root, "mine", "two"), 400, "invalid_header", "/header/studio-plan")
    problem(await stranger.get(f"{BASE}/cascades/plans/{plan['id']}"), 404, "not_found")
    assert (await patch(engine.http, root, plan, "two")).status_code == 200
    used = problem(await patch(engine.http, root, plan, "three"), 409, "plan_used")
    assert used["cascade_id"]
    late = await planned(engine.http, blob_id=str(root), data={"text": "three"})
    await engine.admin.execute("update plans set expires_at = now() - interval '1 s' where id = $1", UUID(late["id"]))
    problem(await patch(engine.http, root, late, "three"), 410, "plan_expired")
    assert (await engine.http.get(f"{BASE}/cascades/plans/{late['id']}")).json()["status"] == "expired"


async def test_what_was_planned_to_change_nothing_must_change_nothing(engine: Engine) -> None:
    root = await chain(engine)
    nothing = await planned(engine.http, blob_id=str(root), **envelope(data={"text": "one"}))
    await engine.edit(root, "two")
    problem(await patch(engine.http, root, nothing, "one"), 409, "plan_moved")
    something = await planned(engine.http, blob_id=str(root), **envelope(data={"text": "one"}))
    await engine.edit(root, "one")
    problem(await patch(engine.http, root, something, "one"), 409, "plan_moved")
    again = await planned(engine.http, blob_id=str(root), **envelope(data={"text": "one"}))
    assert (await patch(engine.http, root, again, "one")).status_code == 200
    problem(await patch(engine.http, root, again, "one"), 409, "plan_used")


async def test_a_repeated_request_is_answered_again_whether_it_plans_or_is_bound(engine: Engine) -> None:
    root = await chain(engine)
    asked = {"blob_id": str(root), **envelope(data={"text": "two"})}
    first = await engine.http.post(f"{BASE}/cascades/plan", json=asked, headers={"idempotency-key": "p1"})
    again = await engine.http.post(f"{BASE}/cascades/plan", json=asked, headers={"idempotency-key": "p1"})
    assert first.json() == again.json()
    plan = first.json()
    done = await patch(engine.http, root, plan, "two", **{"idempotency-key": "k1"})
    assert done.status_code == 200, done.text
    await engine.admin.execute(  # the answer was lost, the effect was not
        "update idempotency_keys set completed_at = null, status = null, leased_at = now() - interval '1 hour'"
        " where user_id = $1 and key = 'k1'", engine.user.user_id,
    )  # fmt: skip
    repeated = await patch(engine.http, root, plan, "two", **{"idempotency-key": "k1"})
    assert repeated.status_code == 200, repeated.text
    assert repeated.json()["version"] == done.json()["version"]


@pytest.mark.parametrize("forgotten", [
    "update idempotency_keys set created_at = created_at - interval '25 hours' where user_id = $1",
    "delete from idempotency_keys where user_id = $1",
])  # fmt: skip
async def test_a_used_plan_is_refused_to_a_request_whose_key_is_forgotten(engine: Engine, forgotten: str) -> None:
    root = await chain(engine)
    plan = await planned(engine.http, blob_id=str(root), data={"text": "two"})
    bound = {"idempotency-key": "k1"}
    assert (await patch(engine.http, root, plan, "two", **bound)).status_code == 200
    await engine.edit(root, "by hand")
    await engine.admin.execute(forgotten, engine.user.user_id)
    for _ in range(2):
        problem(await patch(engine.http, root, plan, "two", **bound), 409, "plan_used")
    assert await engine.text(root) == "by hand"


async def test_the_plan_of_a_cascade_may_be_gone(engine: Engine) -> None:
    root = await chain(engine)
    plan = await planned(engine.http, blob_id=str(root), data={"text": "two"})
    cascade = (await patch(engine.http, root, plan, "two")).json()["cascade_id"]
    assert "plan" in await engine.ask("GET", f"/cascades/{cascade}")
    await engine.rows("delete from plans where user_id = $1 returning id")
    assert "plan" not in await engine.ask("GET", f"/cascades/{cascade}")


async def test_writes_without_a_plan_fold_as_ever(
    client: httpx2.AsyncClient, user: Person, database: Database, contents: Contents
) -> None:
    blob = await make(client, **DRAFT)
    await planned(client, blob_id=blob["id"], title="Planned")
    changed = await edit(client, blob["id"], title="Chapter 1")
    assert changed["cascade_id"] == blob["cascade_id"]
    assert await plan_all(database, schedule_of(database, contents), user.user_id) == [UUID(blob["cascade_id"])]
