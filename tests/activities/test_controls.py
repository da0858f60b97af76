"""What people decide about runs and cascades, over the API, with the schedule moved by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
from temporalio.common import RawValue
from temporalio.converter import default
from temporalio.testing import ActivityEnvironment

from activities.runs import RunActivities, RunRef, StepRequest
from domain.works import ClaimedRun
from storage.schedule import PostgresSchedule
from tests.activities.test_runs import Answers
from tests.conftest import BASE
from tests.storage.engine import Engine, schedule_of

ASK = {
    "id": "write", "type": "api-call", "service": "ai-service", "endpoint": "/ask",
    "input_map": {"text": "$.data.text"}, "output_map": {"text": "$.text"},
}  # fmt: skip
REVIEW = {"id": "review", "type": "approval", "prompt": "May this be published? {{ $.text }}"}
KEEP = {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": "out-v1",
        "data_map": {"text": "$.text + ' ' + ($.steps.review.comment || 'unsaid')"}}  # fmt: skip


class Desk:
    """Runs of one reviewed provider, carried out step by step as its workflow would."""

    def __init__(self, engine: Engine, environment: ActivityEnvironment) -> None:
        self.engine = engine
        self.environment = environment
        self.service = Answers()
        self.activities = RunActivities(
            engine.schedule, self.service, step_timeout=timedelta(seconds=30), step_attempts=3
        )

    async def begin(self) -> ClaimedRun:
        """A provider that writes and has it reviewed, with another below it; its run, claimed."""
        await self.engine.schemas("in-v1", "out-v1", "end-v1")
        await self.engine.register("writer", [ASK, REVIEW, KEEP], input_schema_id="in-v1")
        await self.engine.provider("below", "out-v1", "end-v1", origin="any")
        await self.engine.rest()
        await self.engine.create("in-v1")
        return await self.engine.take(await self.engine.latest())

    async def work(self, run: UUID) -> str:
        """Carry a run out as far as it goes, as ``workflows/runs.py`` does."""
        ref = RunRef(user_id=str(self.engine.user.user_id), run_id=str(run))
        plan = await self.environment.run(self.activities.load, ref)
        for found in plan.steps:
            request = StepRequest(user_id=ref.user_id, run_id=ref.run_id, step_id=found.id, position=found.position)
            raw = RawValue(default().payload_converter.to_payload(request))
            done = await self.environment.run(self.activities.step, [raw])
            if done.status != "done":
                return str(done.status)
        return plan.status if not plan.steps else str(await self.environment.run(self.activities.settle, ref))

    async def post(self, path: str, body: Any = None, status: int = 202, **headers: str) -> httpx2.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.engine.http.post(f"{BASE}{path}", json=body, headers=given)
        assert answer.status_code == status, answer.text
        await self.engine.check()
        return answer

    async def refused(self, path: str, code: str, body: Any = None) -> None:
        answer = await self.post(path, body, 409)
        assert answer.json()["code"] == code, answer.text

    async def states(self) -> dict[str, tuple[str | None, str | None]]:
        rows = await self.engine.rows(
            "select p.slug, d.hold, d.hold_detail->>'code' as code from derivations d"
            " join providers p on p.id = d.provider_id where d.user_id = $1"
        )
        return {row["slug"]: (row["hold"], row["code"]) for row in rows}


async def test_an_approved_run_goes_on_where_it_stopped_and_pays_nothing_twice(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    desk = Desk(engine, environment)
    run = await desk.begin()
    assert await desk.work(run.run_id) == "parked"
    assert await desk.work(run.run_id) == "parked"
    claim = await engine.claim(await engine.latest())
    assert (claim.runs, claim.closed, claim.status) == ((), True, "partial")
    [waiting] = (await engine.ask("GET", "/approvals"))["data"]
    assert (waiting["run_id"], waiting["step_id"]) == (str(run.run_id), "review")
    assert waiting["prompt"] == "May this be published? answer"
    assert waiting["waiting_since"] is not None
    await desk.refused(f"/runs/{run.run_id}/approve", "not_waiting", {"step_id": "another"})
    answer = await desk.post(f"/runs/{run.run_id}/approve", {"comment": "Yes.", "step_id": "review"})
    assert answer.headers["location"].endswith(f"/runs/{run.run_id}")
    assert (answer.json()["status"], answer.json()["outcome"]) == ("running", "done")
    assert (await desk.post(f"/runs/{run.run_id}/approve")).json()["outcome"] == "already"
    [again] = (await engine.claim(await engine.latest())).runs
    assert (again.run_id, again.workflow_id, again.resumed) == (run.run_id, f"run:writer:{run.run_id}", 1)
    assert await desk.work(run.run_id) == "settled"
    assert len(desk.service.asked) == 1
    await engine.rest()
    assert await engine.text(await engine.output("writer")) == "answer Yes."
    assert await engine.text(await engine.output("below")) == "answer Yes.!"
    assert (await engine.ask("GET", "/approvals"))["data"] == []
    await desk.refused(f"/runs/{run.run_id}/approve", "not_waiting")
    await desk.refused(f"/runs/{run.run_id}/cancel", "not_running")
    await desk.refused(f"/runs/{run.run_id}/retry", "nothing_to_retry")
    await desk.post(f"/runs/{UUID(int=7)}/approve", None, 404)


async def test_an_edit_takes_the_question_back_and_asks_anew(engine: Engine, environment: ActivityEnvironment) -> None:
    desk = Desk(engine, environment)
    run = await desk.begin()
    await desk.work(run.run_id)
    [blob] = await engine.rows("select id from blobs where user_id = $1 and created_by = 'user'")
    newer = await engine.take(await engine.edit(blob["id"], "b"))
    assert await engine.runs("writer") == ["superseded", "running"]
    await desk.refused(f"/runs/{run.run_id}/approve", "not_waiting")
    assert await desk.work(newer.run_id) == "parked"
    # One whose input has moved while it worked is not asked about: nobody decides about what is out of date.
    await desk.post(f"/runs/{newer.run_id}/cancel")
    late = await engine.take(await engine.edit(blob["id"], "c"))
    await engine.plan(await engine.edit(blob["id"], "d"))
    assert await desk.work(late.run_id) == "superseded"


async def test_a_rejected_run_is_held_until_its_source_changes_and_then_asks_for_new_answers(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    desk = Desk(engine, environment)
    run = await desk.begin()
    await desk.work(run.run_id)
    await desk.post(f"/runs/{run.run_id}/reject", {"comment": "No.", "step_id": "review"}, idempotency_key='"a"')
    again = await desk.post(
        f"/runs/{run.run_id}/reject", {"comment": "No.", "step_id": "review"}, idempotency_key='"a"'
    )
    assert again.headers["idempotency-replayed"] == "true"
    shown = await engine.ask("GET", f"/runs/{run.run_id}")
    assert (shown["status"], shown["error"]["code"], shown["error"]["detail"]) == ("cancelled", "rejected", "No.")
    assert (await desk.states())["writer"] == ("cancelled", "rejected")
    await engine.rest()
    [blob] = await engine.rows("select id from blobs where user_id = $1 and created_by = 'user'")
    graph = await engine.ask("GET", f"/blobs/{blob['id']}/dag")
    states = {node["provider_id"]: node["state"] for node in graph["nodes"]}
    assert (states["writer"], states["below"]) == ("cancelled", "blocked")
    newer = await engine.take(await engine.edit(blob["id"], "b"))
    assert await desk.work(newer.run_id) == "parked"
    assert len(desk.service.asked) == 2


async def test_a_cancelled_run_holds_what_is_below_until_it_is_retried(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    desk = Desk(engine, environment)
    run = await desk.begin()
    cascade = await engine.latest()
    assert (await desk.post(f"/runs/{run.run_id}/cancel")).json()["outcome"] == "done"
    assert (await desk.post(f"/runs/{run.run_id}/cancel")).json()["outcome"] == "already"
    [row] = await engine.rows("select workflow_id from stops where user_id = $1")
    assert row["workflow_id"] == run.workflow_id
    assert await desk.work(run.run_id) == "superseded"
    claim = await engine.claim(cascade)
    assert (claim.closed, claim.status) == (True, "partial")
    assert (await desk.states())["writer"] == ("cancelled", None)
    answer = await desk.post(f"/runs/{run.run_id}/retry")
    assert answer.headers["location"].endswith(f"/cascades/{cascade}")
    assert answer.json()["status"] == "running"
    [second] = (await engine.claim(cascade)).runs
    assert second.run_id != run.run_id
    kinds = await engine.rows("select type from events where user_id = $1 and type ~ 'cancel|retr'")
    assert sorted(row["type"] for row in kinds) == ["cascade.retried", "run.cancelled"]


async def test_cancelling_a_cascade_that_nobody_has_planned_loses_nothing(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "end-v1", origin="any")
    blob = await engine.create("in-v1", "a")
    await engine.rest()
    cascade = await engine.edit(blob, "b")
    desk = Desk(engine, environment)
    shown = (await desk.post(f"/cascades/{cascade}/cancel")).json()
    assert (shown["status"], shown["outcome"]) == ("cancelled", "done")
    assert (await desk.post(f"/cascades/{cascade}/cancel")).json()["outcome"] == "already"
    await engine.rest()
    assert await engine.text(blob) == "b"
    assert await engine.text(await engine.output("two")) == "a!!"
    assert await desk.states() == {"one": ("cancelled", None), "two": ("cancelled", None)}
    await desk.post(f"/cascades/{cascade}/retry")
    await engine.rest()
    assert await engine.text(await engine.output("two")) == "b!!"
    assert (await engine.ask("GET", f"/cascades/{cascade}"))["status"] == "completed"
    await desk.refused(f"/cascades/{cascade}/cancel", "not_running")
    await desk.refused(f"/cascades/{cascade}/retry", "nothing_to_retry")


async def test_what_was_cancelled_goes_on_with_the_next_cause_that_touches_it(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    await engine.provider("one", "in-v1", "mid-v1", "'the same'")
    await engine.provider("two", "mid-v1", "end-v1", origin="any")
    blob = await engine.create("in-v1", "a")
    await Desk(engine, environment).post(f"/cascades/{await engine.latest()}/cancel")
    await engine.rest()
    await engine.edit(blob, "b")
    await engine.rest()
    assert await engine.text(await engine.output("two")) == "the same!"
    assert await Desk(engine, environment).states() == {"one": (None, None), "two": (None, None)}


async def test_a_run_that_is_lost_again_and_again_has_failed(engine: Engine) -> None:
    engine.schedule = schedule_of(engine.database, engine.contents, losses_max=3)
    schedule: PostgresSchedule = engine.schedule
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.create("in-v1")
    cascade = await engine.plan_all()
    answers = []
    for _ in range(3):
        [run] = (await engine.claim(cascade)).runs
        answers.append(await schedule.lose(engine.user.user_id, run.run_id))
    assert answers == ["lost", "lost", "failed"]
    assert await engine.runs("one") == ["lost", "lost", "failed"]
    assert (await engine.derivation("one"))["hold"] == "failed"
    [letter] = (await engine.ask("GET", "/dead-letters"))["data"]
    assert letter["code"] == "run_lost"
    await engine.ask("POST", f"/runs/{run.run_id}/retry")
    await engine.rest()
    assert (await engine.derivation("one"))["hold"] is None
