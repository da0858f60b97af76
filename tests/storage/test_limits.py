"""Places: how many runs a user, a provider and a service may have at a time, and who takes one that is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from domain.keys import SCOPES
from domain.works import Settlement
from storage.database import Database
from storage.schedule import Places
from tests.conftest import BASE, Person, client_of
from tests.storage.engine import Engine, schedule_of

SERVICE = "ai-service"
RELAY_OFFERS = "select studio_offer_services()"


@pytest_asyncio.fixture
async def other(engine: Engine, app: Any, make_user: Callable[[], Awaitable[Person]]) -> AsyncIterator[Engine]:
    """A second user beside ``engine``."""
    person = await make_user()
    async with client_of(app, person.headers) as http:
        yield replace(engine, http=http, user=person, known=set())


@pytest_asyncio.fixture
async def chief(app: Any, make_user: Callable[..., Awaitable[Person]]) -> AsyncIterator[httpx2.AsyncClient]:
    """An admin."""
    async with client_of(app, (await make_user(SCOPES)).headers) as http:
        yield http


@pytest_asyncio.fixture
async def nobody(admin: Any) -> None:
    """Nobody calls or waits for a service: other tests leave their runs under way."""
    await admin.execute("delete from service_slots")
    await admin.execute("delete from room_waits where kind = 'service'")


def held_to(engine: Engine, runs: int | None = None, *, calls: int | None = None) -> Engine:
    """The same user under a schedule with limits."""
    places = Places(runs_per_user=runs, services={} if calls is None else {SERVICE: calls})
    return replace(engine, schedule=schedule_of(engine.database, engine.contents, places=places))


async def calls(engine: Engine, slug: str, source: str, target: str, **more: Any) -> None:
    """A provider that calls a service."""
    await engine.schemas(source, target)
    ask = {"id": "ask", "type": "api-call", "service": SERVICE, "endpoint": "/x", "output_map": {"text": "$.text"}}
    keep = {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": target,
            "data_map": {"text": "$.text"}}  # fmt: skip
    await engine.register(slug, [ask, keep], input_schema_id=source, **more)


async def cascades_of(engine: Engine, count: int, schema: str = "in-v1") -> list[UUID]:
    """So many planned cascades, one derivation each."""
    found = []
    for number in range(count):
        made = await engine.ask("POST", "/blobs", {"schema_id": schema, "data": {"text": str(number)}, "title": "T"})
        found.append(UUID(made["cascade_id"]))
        await engine.plan(found[-1])
        await engine.ring(found[-1])
    return found


async def end(engine: Engine, run: Any) -> None:
    await engine.settle(Settlement(run_id=run.run_id, outputs=(), usage={}))


async def running(engine: Engine) -> int:
    return (await engine.runs()).count("running")


async def waits(engine: Engine) -> list[tuple[str, str]]:
    rows = await engine.rows("select kind, name from room_waits where user_id = $1 order by kind, name")
    return [(row["kind"], row["name"]) for row in rows]


async def test_parallel_claims_of_several_cascades_never_exceed_a_users_limit(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.plan_all()
    cascades = await cascades_of(engine, 6)
    limited = [held_to(engine, 2) for _ in cascades]
    claims = await asyncio.gather(*(one.schedule.claim(engine.user.user_id, cascade, window=9)
                                    for one, cascade in zip(limited, cascades, strict=True)))  # fmt: skip
    runs = [run for claim in claims for run in claim.runs]
    assert (len(runs), await running(engine)) == (2, 2)
    assert not any(claim.closed for claim in claims)
    assert await waits(engine) == [("user", "")] * 4
    done = {cascade for cascade, claim in zip(cascades, claims, strict=True) if claim.runs}
    while runs:
        await end(engine, runs.pop())
        [rung] = [cascade for cascade in await engine.ring() if cascade in cascades and cascade not in done]
        found = await held_to(engine, 2).claim(rung)
        done.add(rung)
        runs += found.runs
        assert await running(engine) <= 2
        if done == set(cascades):
            break
    assert await waits(engine) == []


async def test_a_provider_that_is_full_holds_nobody_else_back(engine: Engine) -> None:
    await engine.provider("narrow", "in-v1", "out-v1", execution="workflow", max_concurrency=1, priority=1)
    await engine.provider("wide", "in-v1", "other-v1", execution="workflow", priority=5)
    await engine.plan_all()
    first, second = await cascades_of(engine, 2)
    assert [run.provider_id for run in (await held_to(engine, 9).claim(first)).runs] == ["narrow", "wide"]
    found = await held_to(engine, 9).claim(second)
    assert ([run.provider_id for run in found.runs], found.closed) == (["wide"], False)
    assert await waits(engine) == [("provider", "narrow")]


async def test_what_people_wait_for_takes_the_place_before_bulk(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.plan_all()
    items = [{"op": "create", "schema_id": "in-v1", "data": {"text": str(number)}} for number in range(4)]
    batch = UUID((await engine.ask("POST", "/blobs/batch", {"items": items}))["cascade_id"])
    await engine.plan(batch)
    limited = held_to(engine, 1)
    [run] = (await limited.claim(batch)).runs
    [edit] = await cascades_of(engine, 1)
    assert not (await limited.claim(edit)).runs
    await engine.ring()
    await end(engine, run)
    assert edit in await engine.ring()
    assert not (await limited.claim(batch)).runs
    [run] = (await limited.claim(edit)).runs
    await end(engine, run)
    assert batch in await engine.ring()
    assert len((await limited.claim(batch)).runs) == 1


async def test_priority_says_what_is_claimed_first(engine: Engine) -> None:
    for slug, priority in (("late", 4), ("soon", 1), ("usual", 3)):
        await engine.provider(slug, "in-v1", f"{slug}-v1", execution="workflow", priority=priority)
    await engine.plan_all()
    [cascade] = await cascades_of(engine, 1)
    order = []
    for _ in range(3):
        [run] = (await engine.claim(cascade, window=1)).runs
        order.append(run.provider_id)
        await end(engine, run)
    assert order == ["soon", "usual", "late"]


@pytest.mark.usefixtures("nobody")
async def test_a_service_is_shared_by_all_users_fairly_and_the_relay_rings_who_waits(
    engine: Engine, other: Engine, admin: Any
) -> None:
    for person in (engine, other):
        await calls(person, "caller", "in-v1", "out-v1")
        await person.plan_all()
    mine, theirs = await cascades_of(engine, 4), await cascades_of(other, 1)
    busy, quiet = held_to(engine, calls=2), held_to(other, calls=2)
    runs = [run for cascade in mine for run in (await busy.claim(cascade)).runs]
    assert len(runs) == 2
    assert not (await quiet.claim(theirs[0])).runs
    await engine.ring()
    await other.ring()
    await end(engine, runs.pop())
    # The other has no place yet: it comes first, whoever looks first.
    assert not (await busy.claim(mine[2])).runs
    assert await admin.fetchval(RELAY_OFFERS) == 1
    assert theirs[0] in await other.ring()
    assert len((await quiet.claim(theirs[0])).runs) == 1
    assert await admin.fetchval(RELAY_OFFERS) == 0
    assert await admin.fetchval("select count(*) from service_slots where user_id = any($1)", [
        engine.user.user_id, other.user.user_id]) == 2  # fmt: skip


@pytest.mark.usefixtures("nobody")
async def test_the_relay_may_offer_services_and_sees_no_more(engine: Engine, database_urls: Any) -> None:
    await calls(engine, "caller", "in-v1", "out-v1")
    await engine.plan_all()
    first, second = await cascades_of(engine, 2)
    limited = held_to(engine, calls=1)
    [run] = (await limited.claim(first)).runs
    assert not (await limited.claim(second)).runs
    await end(engine, run)
    await engine.ring()
    relay = await Database.connect(database_urls["DATABASE_RELAY_URL"], size_max=1)
    try:
        await relay.call(RELAY_OFFERS)
    finally:
        await relay.close()
    assert second in await engine.ring()


@pytest.mark.usefixtures("nobody")
async def test_the_relay_waits_for_no_move_while_it_offers_services(engine: Engine, database_urls: Any) -> None:
    await calls(engine, "caller", "in-v1", "out-v1")
    await engine.plan_all()
    first, *others = await cascades_of(engine, 3)
    limited = held_to(engine, calls=2)
    [run] = (await limited.claim(first)).runs
    for cascade in others:
        await held_to(engine, calls=1).claim(cascade)
    await end(engine, run)
    await engine.ring()
    relay = await Database.connect(database_urls["DATABASE_RELAY_URL"], size_max=1)
    lock = "select from {} where user_id = $1 and {} = $2 for update"
    try:
        async with asyncio.timeout(10):
            async with engine.locked(lock.format("cascades", "id"), engine.user.user_id, others[0]):
                await relay.call(RELAY_OFFERS)
            async with engine.locked(lock.format("room_waits", "cascade_id"), engine.user.user_id, others[0]):
                await relay.call(RELAY_OFFERS)
            assert await engine.ring() == []
            await relay.call(RELAY_OFFERS)
    finally:
        await relay.close()
    assert await engine.ring() == [others[0]]


async def test_an_admin_gives_a_user_more_places_and_who_waits_is_rung(
    engine: Engine, chief: httpx2.AsyncClient
) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.plan_all()
    first, second = await cascades_of(engine, 2)
    await held_to(engine, 1).claim(first)
    await held_to(engine, 1).claim(second)
    await engine.ring()
    url = f"{BASE}/users/{engine.user.user_id}/limits"
    assert (await chief.put(url, json={"runs_limit": 0})).json()["errors"][0]["pointer"] == "/runs_limit"
    assert (await chief.put(url, json={"runs_limit": 2})).json()["runs_limit"] == 2
    assert second in await engine.ring()
    assert (await engine.ask("GET", "/queue"))["runs_limit"] == 2
    assert (await chief.put(url, json={"bytes_quota": 10**9})).json()["runs_limit"] == 2
    assert len((await held_to(engine, 1).claim(second)).runs) == 1


async def test_the_queue_tells_what_runs_what_waits_and_for_what(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow", max_concurrency=1)
    await engine.provider("two", "mid-v1", "out-v1", execution="workflow", origin="any", priority=5)
    await engine.plan_all()
    first, second = await cascades_of(engine, 2)
    [run] = (await held_to(engine, 5).claim(first)).runs
    await held_to(engine, 5).claim(second)
    queue = await engine.ask("GET", "/queue?limit=2")
    assert (queue["running"], queue["ready"], queue["waiting"], queue["has_more"]) == (1, 1, 2, True)
    ahead, behind = queue["data"]
    assert (ahead["cascade_id"], ahead["provider_id"], ahead["running"], ahead["held_by"]) == (str(first), "one", 1, [])
    [held] = behind["held_by"]
    assert (behind["ready"], behind["position"], held["limit"], held["name"], held["most"]) == (
        1,
        1,
        "provider",
        "one",
        1,
    )
    assert held["since"] is not None
    rest = await engine.ask("GET", f"/queue?cursor={queue['next_cursor']}")
    assert [(row["provider_id"], row["waiting"], row["position"]) for row in rest["data"]] == [("two", 1, None)] * 2
    await end(engine, run)
    assert (await engine.ask("GET", "/queue"))["running"] == 0


async def test_what_has_failed_or_was_cancelled_and_what_waits_for_it_is_not_queued(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    await engine.plan_all()
    first, second, third = await cascades_of(engine, 3)

    async def queued() -> set[tuple[str, int, int]]:
        found = await engine.ask("GET", "/queue")
        assert found["waiting"] == sum(row["waiting"] for row in found["data"])
        return {(row["cascade_id"], row["running"] + row["waiting"], row["held"]) for row in found["data"]}

    for cascade in (first, second, third):
        [run] = (await engine.claim(cascade)).runs
        if cascade == first:
            await engine.schedule.fail(engine.user.user_id, run.run_id, code="service_rejected", detail="", usage={})
        if cascade == second:
            await engine.rows("select cancel_run($1, $2, 'user')", run.run_id)
    assert await queued() == {(str(third), 1, 0)}
    await engine.schedule.park(engine.user.user_id, run.run_id, "ask", 0, "?")
    assert await queued() == {(str(third), 0, 1), (str(third), 1, 0)}  # a person is waited for
    await engine.rows("select retry_cascade($1, $2, 'user')", second)
    assert str(second) in {cascade for cascade, *_ in await queued()}


async def test_an_admin_sees_how_much_of_each_users_is_under_way_and_nobody_else_does(
    engine: Engine, other: Engine, chief: httpx2.AsyncClient
) -> None:
    for person in (engine, other):
        await person.provider("one", "in-v1", "out-v1", execution="workflow")
        await person.plan_all()
    mine, _ = await cascades_of(engine, 2)
    [theirs] = await cascades_of(other, 1)
    await engine.claim(mine)
    await other.claim(theirs)
    url = f"{BASE}/queue?scope=all"
    refused = await engine.http.get(url)
    assert (refused.status_code, refused.json()["required_scope"]) == (403, "admin")
    wrong = await chief.get(f"{BASE}/queue?scope=some")
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/query/scope")
    rows: list[Any] = []
    answer = (await chief.get(f"{url}&limit=1")).json()
    while True:
        rows += answer["data"]
        if not answer["has_more"]:
            break
        answer = (await chief.get(f"{url}&limit=1&cursor={answer['next_cursor']}")).json()
    found = {row.pop("user_id"): row for row in rows}
    assert found[str(engine.user.user_id)] == {"running": 1, "ready": 1, "waiting": 0, "held": 0}
    assert found[str(other.user.user_id)] == {"running": 1, "ready": 0, "waiting": 0, "held": 0}
    assert (answer["users"], answer["running"]) == (len(found), sum(row["running"] for row in found.values()))
